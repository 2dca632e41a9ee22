"""From the chosen candidates to the variants of the bundle: their reported quality, order, tolerances and notes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoglm_edge_converter.acceptance import Acceptance
from autoglm_edge_converter.assemble import Shipped
from autoglm_edge_converter.choose import Limits, doubt_reported, refuse_reported, refuse_search
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.golden_set import tolerances_of
from autoglm_edge_converter.plan import FP16, FP32, INT8, Plan
from autoglm_edge_converter.processor import own_words
from autoglm_edge_converter.pruned_graphs import AUTO, OFF
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.recipes import DYNAMIC, SPARSE, STATIC, WEIGHTS, Candidate
from autoglm_edge_converter.results import Considered, Measured, Refusal
from autoglm_edge_converter.rungs import is_for_elsewhere, is_half, is_on_integers, is_pruned
from autoglm_edge_converter.search import SearchResult
from autoglm_edge_converter.selection import UNDECIDED, Selection
from autoglm_edge_converter.targets import own_signed
from autoglm_edge_converter.workbench import Workbench

SATURATES = "sums of products with signed weights saturate on the machine that converted, not on the targets"
NOTHING = "no candidate was within the budget"


@dataclass(frozen=True)
class Reported:
    """The chosen variants in the ladder's order, and those that the final samples took back."""

    variants: tuple[Measured, ...]
    withdrawn: tuple[Measured, ...] = ()


def report_quality(selection: Selection, bench: Workbench, max_drop: float) -> Reported:
    """Measure what was chosen on the evaluation samples, and withdraw what these prove to be over the budget.

    The order is that of the acceptance samples, best first, so that the figures reported rank nothing.
    """
    ordered = sorted(selection.chosen, key=by_acceptance, reverse=True)
    kept, withdrawn = [], []
    for item in ordered:
        try:
            # Where the two parts are one, this was measured already.
            final = item.quality if bench.parts.shared else _final(item, bench)
            refusal = refuse_reported(final, max_drop)
        except CandidateFailed as error:
            final, refusal = item.quality, f"it fails when it is measured: {error}"
        measured = replace(item, quality=final)
        if refusal is None:
            kept.append(measured)
        else:
            withdrawn.append(measured)
            entry = next(entry for entry in selection.shipped if entry.form == item.id)
            selection.decide(entry, refusal)
    return Reported(tuple(kept), tuple(withdrawn))


def _final(item: Measured, bench: Workbench) -> Score:
    return bench.score(item.answering, bench.parts.evaluation, intervals=True)


def by_acceptance(item: Measured) -> tuple[float, float]:
    """Order variants, the better one greater, by what the acceptance samples said of them."""
    return (item.accepted or item.quality).rank


def ship(item: Measured, acceptance: Acceptance, plan: Plan, base: str, refused: int = 0) -> Shipped | None:
    """Return a variant as it goes into the bundle; None where no tolerance would tell it from a damaged one.

    `base`: the float variant that its speed is relative to. `refused`: how many candidates of its format were judged
    and refused. Raises CandidateFailed, OSError.
    """
    limits = tolerances_of(item, acceptance.bench, acceptance.golden)
    if limits is None:
        return None
    if item.candidate is not None:
        notes = _notes(item, item.candidate, plan.max_drop, base, refused)
    else:
        notes = [note] if (note := tell_of_limits(item, acceptance.limits)) is not None else []
    if plan.demands.targets:
        targets = ", ".join(plan.demands.targets)
        ran = ", ".join(acceptance.oldest.ran(item.path))
        how = f"loaded and run in {ran}" if ran else "judged by tables of operators"
        notes.append(f"for {targets}: {how}; speed measured on this machine only")
    return Shipped(item, limits, tuple(notes))


def _notes(item: Measured, candidate: Candidate, max_drop: float, base: str, refused: int) -> list[str]:
    doubt = doubt_reported(item.quality, max_drop)
    notes = [item.purpose, *([doubt] if doubt else []), f"recipe: {candidate.recipe}"]
    notes += [f"kept in float: {', '.join(candidate.float_nodes)}"] if candidate.float_nodes else []
    notes += [f"{len(candidate.tuned)} ranges tuned"] if candidate.tuned else []
    if item.stand_in is not None:
        notes.append(f"judged as the same numbers with unsigned weights: {SATURATES}")
    if item.twin is not None:
        kind = "signed" if own_signed() else "unsigned"
        notes.append(f"timed with {kind} activations instead, which suit the machine that converted")
    if item.unknown_on:
        machines = " and ".join(item.unknown_on)
        notes.append(f"speed on {machines} is not known from this machine ({own_words()}): the device measures")
    if candidate.graph == SPARSE:
        compressed = len(zlib.compress(item.path.read_bytes()))
        notes.append(f"{compressed:,} bytes under compression (zlib), of {item.size_bytes:,}")
    notes += [f"{item.speedup:.2f} times the speed of {base} here"] if item.speedup < 1.0 else []
    judged = f"{refused} candidate{'s were' if refused > 1 else ' was'}"
    notes += [f"{judged} refused by the acceptance samples or the targets"] if refused else []
    return notes


def refusals_of(
    plan: Plan, result: SearchResult | None, considered: Sequence[Considered], shipped: Sequence[str], float_bytes: int
) -> tuple[Refusal, ...]:
    """Return what was asked for and is not among the variants shipped, with the reason."""
    refusals: list[Refusal] = []
    there = [entry for entry in considered if entry.form in shipped]
    if INT8 in plan.precisions and not any(map(is_on_8_bits, there)):
        reason = _reason([entry for entry in considered if is_on_8_bits(entry)])
        refusals.append(Refusal(INT8, refuse_search(result, plan.max_drop) or reason))
    if FP16 in plan.precisions and not any(map(is_half, there)):
        refusals.append(Refusal(FP16, _reason([entry for entry in considered if is_half(entry)])))
    if result is not None and _tried_integers(result) and not any(map(is_on_integers, there)):
        reason = _reason(list(filter(is_on_integers, considered)))
        refusals.append(Refusal("int8-io", refuse_search(result, plan.max_drop, integers=True) or reason))
    limit = plan.max_size_bytes
    if limit is not None and float_bytes > limit and not there:
        refusals.append(Refusal("small", f"nothing within the budget has at most {limit:,} bytes"))
    return tuple(refusals)


def why_not_pruned(plan: Plan, considered: Sequence[Considered], shipped: Sequence[str]) -> str | None:
    """Return why nothing pruned is shipped of what was considered; None where something is, or need not be.

    To prune as far as is useful (`--prune auto`) may be not at all; to prune by so much was asked for.
    """
    there = any(is_pruned(entry) for entry in considered if entry.form in shipped)
    if there or plan.prune in (OFF, AUTO):
        return None
    return _reason(list(filter(is_pruned, considered)))


def is_on_8_bits(entry: Considered) -> bool:
    """Tell whether a candidate keeps its weights on 8 bits."""
    return entry.trial.candidate.recipe.family in (STATIC, DYNAMIC, WEIGHTS)


def _tried_integers(result: SearchResult) -> bool:
    return any(trial.candidate.recipe.everything for trial in result.trials)


def tell_of_limits(item: Measured, limits: Limits) -> str | None:
    """Return which limits the float variant is over: it is shipped all the same. None where it keeps them."""
    over = limits.exceeded(item.size_bytes, item.timing)
    if over is None:
        return None
    return f"{item.id} is over {over}: it is in the bundle as what the other variants are compared with"


def tell_of_float_arithmetic(
    result: SearchResult | None, max_drop: float, considered: Sequence[Considered], shipped: Sequence[str]
) -> str | None:
    """Return why 8-bit weights are shipped for their size alone, and nothing that computes on 8 bits.

    None where that is not so. It is no refusal: what was asked for is there.
    """
    there = [entry for entry in considered if entry.form in shipped and is_on_8_bits(entry)]
    if not there or any(entry.trial.candidate.recipe.family != WEIGHTS for entry in there):
        return None
    on_8_bits = [entry for entry in considered if entry.trial.candidate.recipe.family in (STATIC, DYNAMIC)]
    reason = refuse_search(result, max_drop) or _reason(on_8_bits)
    return f"8-bit weights are shipped for their size and computed in float; nothing that computes on 8 bits: {reason}"


def tell_of_elsewhere(considered: Sequence[Considered], shipped: Sequence[str]) -> str | None:
    """Return why nothing is shipped that only the targets have instructions for, though other 8 bits are.

    None where that is not so, or where `tell_of_float_arithmetic` tells of it.
    """
    there = [entry for entry in considered if entry.form in shipped]
    lost = [entry for entry in considered if is_for_elsewhere(entry)]
    computed = any(entry.trial.candidate.recipe.family == DYNAMIC for entry in there)
    if not lost or not computed or any(map(is_for_elsewhere, there)):
        return None
    machines = " and ".join(lost[0].unknown_on)
    return f"nothing for the 8-bit instructions of {machines}, of which this machine has none: {_reason(lost)}"


def _reason(entries: Sequence[Considered]) -> str:
    # The fastest came nearest to being shipped.
    ranked = sorted(entries, key=lambda entry: -entry.speedup)
    told = [entry.outcome for entry in ranked if entry.outcome != UNDECIDED]
    return (told or [entry.outcome for entry in entries] or [NOTHING])[0]


def float_wanted(plan: Plan, others: Sequence[Measured]) -> bool:
    """Tell whether the float variant is shipped: where it is asked for, or nothing else is left."""
    return FP32 in plan.precisions or not others
