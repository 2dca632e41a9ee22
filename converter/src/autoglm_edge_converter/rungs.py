"""Filling the rungs of a bundle with what was timed: the fastest, the smallest, and what lies between on the front."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from autoglm_edge_converter.acceptance import Acceptance
from autoglm_edge_converter.choose import (
    MOST_VARIANTS,
    NOTICEABLE,
    WORTHWHILE,
    fastest_first,
    is_slower,
    smallest_first,
    steps_up,
)
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import HALF, OPTIMISED, SPARSE
from autoglm_edge_converter.results import Considered
from autoglm_edge_converter.search.trials import by_quality
from autoglm_edge_converter.selection import Selection, fill_place

FASTEST = "the fastest within the budget"
HALF_SIZE = "weights on 16 bits: half the size, nearly the float answers"
SMALLEST = "the smallest within the budget"
SPARSEST = "the smallest weights are zero: smaller under compression, no faster"
ELSEWHERE = "8-bit kernels that the targets have instructions for and this machine has not: chosen by its answers"
INTEGERS = "integers throughout, inputs and outputs too, for accelerators: chosen by its answers, not by speed here"
UNNOTICED = 0.02
"""A part of the multiplications in float that no board notices: a last layer there often halves the noise of all."""

BETTER = "clearly better answers than the faster ones, faster than float"


def fill_fastest(selection: Selection, acceptance: Acceptance) -> bool:
    """Fill the first place; tell whether there were candidates for it, and each was refused."""
    fast = fastest_first([entry for entry in selection.undecided if not is_half(entry) and not _has_own_place(entry)])
    fill_place(selection, fast, FASTEST, acceptance)
    return bool(fast) and not selection.chosen


def fill_elsewhere(selection: Selection, acceptance: Acceptance) -> bool:
    """Fill the place of what only the targets have instructions for; tell whether each candidate for it was refused.

    Not so where one that is shipped for another reason serves them.
    """
    order = for_elsewhere(selection.undecided, selection.shipped)
    filled = fill_place(selection, order, ELSEWHERE, acceptance)
    return bool(order) and filled is None and not any(map(is_for_elsewhere, selection.shipped))


def fill_rungs(
    selection: Selection, acceptance: Acceptance, float_bytes: int, halves_wanted: bool, progress: Progress
) -> None:
    """Fill the other places and say why what is left over is not shipped. `float_bytes`: size of the float variant."""
    size_matters = acceptance.limits.max_size_bytes is not None
    progress.stage("judge", 3)
    _drop_useless_halves(selection, float_bytes)
    if halves_wanted or all(item.purpose == ELSEWHERE for item in selection.chosen):
        # Slower ones only where they were asked for, by name or by size.
        halves = [entry for entry in selection.undecided if is_half(entry) and (halves_wanted or not is_slower(entry))]
        fill_place(selection, halves, HALF_SIZE, acceptance)
    progress.step("16 bits")
    smallest = min([float_bytes, *(item.size_bytes for item in selection.chosen)])
    fill_place(selection, _by_compressed_size(selection), SPARSEST, acceptance)
    fill_place(selection, _integers_by_quality(selection), INTEGERS, acceptance)
    left = [entry for entry in selection.undecided if not is_half(entry) and not _has_own_place(entry)]
    fill_place(selection, smallest_first(left, smallest, size_matters), SMALLEST, acceptance)
    progress.step("smallest")
    _fill_between(selection, acceptance)
    progress.step("between")
    for entry in selection.undecided:
        if entry.speedup < NOTICEABLE:
            how = "slower" if round(entry.speedup, 2) < 1.0 else "hardly faster"
            selection.decide(entry, f"it is {how} than float here ({entry.speedup:.2f} times its speed)")


def _drop_useless_halves(selection: Selection, float_bytes: int) -> None:
    """Small constants stay on 32 bits: a model that has no others gains nothing."""
    for entry in filter(is_half, selection.undecided):
        if entry.size_bytes > float_bytes * WORTHWHILE:
            selection.decide(entry, f"it saves next to nothing: {entry.size_bytes:,} bytes, float has {float_bytes:,}")


def _fill_between(selection: Selection, acceptance: Acceptance) -> None:
    while selection.chosen and len(selection.chosen) + 1 < MOST_VARIANTS:
        others = [entry for entry in selection.undecided if not _has_own_place(entry)]
        order = steps_up(others, [entry for entry in selection.shipped if not is_on_integers(entry)])
        if fill_place(selection, order, BETTER, acceptance) is None:
            return


def _by_compressed_size(selection: Selection) -> list[Considered]:
    """Order the candidates with zeros by their size under compression (zlib), the smallest first."""
    sparse = [entry for entry in selection.undecided if is_sparse(entry)]
    return sorted(sparse, key=lambda entry: len(zlib.compress(selection.paths[entry.form].read_bytes())))


def for_elsewhere(entries: Sequence[Considered], shipped: Sequence[Considered]) -> list[Considered]:
    """Order the candidates whose time here does not tell of the targets: by what is left in float, then by quality.

    None where one that leaves no more in float is shipped already, whatever it was shipped for.
    """

    def order(entry: Considered) -> tuple[int, bool, bool]:
        candidate = entry.trial.candidate
        floats = len(candidate.float_nodes) if entry.float_share > UNNOTICED else 0
        # Going to float and back costs there too.
        return floats, not candidate.recipe.followers, candidate.graph != OPTIMISED

    def concerned(known: Sequence[Considered]) -> list[Considered]:
        return list(filter(is_for_elsewhere, known))

    best = sorted(concerned(entries), key=lambda entry: by_quality(entry.trial), reverse=True)
    least = min(map(order, concerned(shipped)), default=None)
    return sorted((entry for entry in best if least is None or order(entry) < least), key=order)


def _integers_by_quality(selection: Selection) -> list[Considered]:
    able = [entry for entry in selection.undecided if is_on_integers(entry)]
    return sorted(able, key=lambda entry: by_quality(entry.trial), reverse=True)


def is_for_elsewhere(entry: Considered) -> bool:
    """Tell whether a candidate's time here does not tell of all that it is for."""
    return bool(entry.unknown_on) and not _has_own_place(entry)


def _has_own_place(entry: Considered) -> bool:
    return is_sparse(entry) or is_on_integers(entry)


def is_on_integers(entry: Considered) -> bool:
    """Tell whether a candidate has integers throughout, which accelerators run and this processor need not."""
    return entry.trial.candidate.recipe.everything


def is_sparse(entry: Considered) -> bool:
    """Tell whether a candidate has its smallest weights at zero."""
    return entry.trial.candidate.graph == SPARSE


def is_pruned(entry: Considered) -> bool:
    """Tell whether a candidate has channels taken out."""
    return entry.trial.candidate.graph not in (OPTIMISED, SPARSE)


def is_half(entry: Considered) -> bool:
    """Tell whether a candidate keeps its weights on 16 bits."""
    return entry.trial.candidate.recipe.family == HALF
