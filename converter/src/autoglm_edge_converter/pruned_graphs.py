"""Pruned float graphs for the search: from the option `--prune` to a graph within the budget, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.errors import BadOption, CandidateFailed
from autoglm_edge_converter.float_graphs import FloatGraph
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.pruning import (
    GroupCut,
    PrunedModel,
    Step,
    Study,
    at_fraction,
    choose,
    measure,
    plan_ratios,
    prune_to,
    study,
)
from autoglm_edge_converter.pruning.ratios import Choice, Judge
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.workbench import Workbench

OFF, AUTO = "off", "auto"
PRUNED = "pruned"
"""What the pruned float graph is called."""

TIME_S = 60.0
"""How long the groups may be measured; those left over stay as they are."""

LEAST_SQNR_DB = 17.5
"""How far the answers of a graph pruned by itself may be from the original's. Agreement on a few hundred samples stays
at 100 % long after a network has become brittle: with 190 clean images of digits nothing is seen until 86 % of the
multiplications are gone, when on turned and noisy images 0.7 points are lost; at 17.5 dB it is 0.2."""


@dataclass(frozen=True)
class Pruning:
    """What was done about pruning: the groups of coupled channels, and how much is gone; `reason` says why nothing."""

    groups: tuple[GroupCut, ...]
    weights_removed: float = 0.0
    multiplications_removed: float = 0.0
    reason: str | None = None


def check_prune(option: str) -> None:
    """Refuse what is neither `auto`, `off` nor a fraction. Raises BadOption."""
    if option not in (OFF, AUTO):
        _fraction(option)


def _fraction(option: str) -> float:
    try:
        fraction = float(option)
    except ValueError:
        fraction = -1.0
    if not 0 < fraction < 1:
        raise BadOption(f"--prune is auto, off or a fraction of the multiplications such as 0.4, not {option!r}")
    return fraction


def pruned_graphs(
    proto: onnx.ModelProto, bench: Workbench, option: str, max_drop: float, seed: int, progress: Progress
) -> tuple[tuple[FloatGraph, ...], Pruning | None]:
    """Return the pruned graphs that candidates are made of, and what was found; nothing where pruning is off."""
    if option == OFF:
        return (), None
    progress.stage("prune", 40)
    try:
        known = study(proto, [bench.feeds[index] for index in bench.parts.calibration], seed)
        progress.step("channels followed")
        found = _prune(known, bench, option, max_drop, progress)
    except Exception as error:
        # Pruning is an offer: whatever a graph makes it raise, the conversion goes on without.
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        found = Pruning((), reason=f"it fails: {reason}")
    if isinstance(found, Pruning):
        progress.note(f"nothing is pruned: {found.reason}")
        return (), found
    graph = FloatGraph(PRUNED, found.proto, found.weights_removed)
    return (graph,), Pruning(found.groups, found.weights_removed, found.multiplications_removed)


def _prune(known: Study, bench: Workbench, option: str, max_drop: float, progress: Progress) -> PrunedModel | Pruning:
    groups = prune_to(known, {}).groups
    if not any(known.widths(group) for group in known.groups):
        return Pruning(groups, reason=_why_not(groups))
    deadline = Deadline(TIME_S)
    judge = _judge(bench, bench.sensitivity_samples)
    sensitivities = measure(known, judge, progress.step, lambda: deadline.passed(1.0))
    path = plan_ratios(known, sensitivities)
    if option != AUTO:
        step = at_fraction(path, _fraction(option))
        return prune_to(known, step.widths) if step else Pruning(groups, reason="no group could be measured")
    chosen = _choose(known, path, bench, max_drop, progress)
    return chosen or Pruning(groups, reason="every group costs more quality than the budget allows")


def _choose(
    known: Study, path: Sequence[Step], bench: Workbench, max_drop: float, progress: Progress
) -> PrunedModel | None:
    found: Choice | None = choose(
        known, path, _judge(bench, bench.parts.search), max_drop, LEAST_SQNR_DB, progress.step
    )
    return found.model if found else None


def _why_not(groups: Sequence[GroupCut]) -> str:
    reasons = [f"{group.name}: {group.reason}" for group in groups if group.reason]
    if not groups:
        return "no layer has constant float32 weights"
    return f"no group of channels is wide enough and free; {'; '.join(reasons[:3]) or 'all are narrow'}"


def _judge(bench: Workbench, samples: Sequence[int]) -> Judge:
    def judge(proto: onnx.ModelProto) -> Score | _Failed:
        try:
            return bench.score(bench.write(proto, "pruned-try"), samples)
        except CandidateFailed:
            return _Failed()

    return judge


@dataclass(frozen=True)
class _Failed:
    """The judgement of a graph that the runtime refuses."""

    drop: float = 1.0
    sqnr_db: float | None = None
    finite: bool = False
