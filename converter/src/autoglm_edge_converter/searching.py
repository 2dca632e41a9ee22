"""Searching the formats one after the other: candidates tried, timed, judged, their figures taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from autoglm_edge_converter.acceptance import Acceptance
from autoglm_edge_converter.cache import Cache
from autoglm_edge_converter.choose import CLEARER_DB, NOT_TRIED, clearest_db, worth_judging
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.measure import Form, measure_form, time_forms
from autoglm_edge_converter.original import ONNX
from autoglm_edge_converter.plan import FP16, Plan
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import Candidate
from autoglm_edge_converter.results import Measured
from autoglm_edge_converter.rungs import fill_elsewhere, fill_fastest, fill_rungs
from autoglm_edge_converter.search import Demand, SearchResult, Trial, search
from autoglm_edge_converter.selection import Builder, Selection, consider
from autoglm_edge_converter.shipping import Reported, report_quality
from autoglm_edge_converter.sides import Side, steps_of
from autoglm_edge_converter.workbench import Workbench

NO_CHANGE = f"{NOT_TRIED}: it changes nothing in this graph"

MOST_ROUNDS = 4
"""How often is searched altogether."""


@dataclass(frozen=True)
class Found:
    """What one builder's search found, and which of it was timed and chosen."""

    result: SearchResult
    selection: Selection


@dataclass(frozen=True)
class Done:
    """One format, done: what was found, and its figures."""

    side: Side
    found: Found | None
    reference: Mapping[str, Measured]
    """The original, where it is of this format, and the float variant, by id."""
    reported: Reported

    @property
    def float_variant(self) -> Measured:
        """The float variant as it was measured."""
        return self.reference[self.side.float_variant.id]


def search_sides(
    sides: Sequence[Side], acceptance: Acceptance, plan: Plan, cache: Cache, progress: Progress
) -> list[Done]:
    """Do one format after the other, each in its part of the time budget and what the one before left of its own."""
    part_s = plan.budget_s / len(sides)
    done: list[Done] = []
    left_s = 0.0
    for side in sides:
        deadline = Deadline(part_s + left_s)
        done.append(_do(side, acceptance, plan, cache, deadline, progress))
        left_s = deadline.budget_s - deadline.used_s
    return done


def _do(side: Side, acceptance: Acceptance, plan: Plan, cache: Cache, deadline: Deadline, progress: Progress) -> Done:
    """Search one format, fill its rungs and measure what they hold. Raises CandidateFailed, OSError."""
    bench = acceptance.bench
    pruned = [entry.name for entry in side.pruned]
    planned = plan.candidates(pruned) if side.format == ONNX else plan.tflite_candidates(pruned)
    if not planned:
        progress.stage("measure", 1)
        timings, _ = time_forms(side.floats, bench)
        progress.step("latency")
        return Done(side, None, _measure(side.floats, bench, timings), Reported(()))
    progress.stage("search", steps_of(side, len(bench.parts.calibration), planned))
    builder = side.open(deadline, cache, progress)
    found = find(builder, planned, side.floats, acceptance, progress)
    if found.result.out_of_time:
        progress.note(f"the search ended after {deadline.budget_s:.3g} s: a larger --budget-s may find better")
    reference = _measure(side.floats, bench, found.selection.timings)
    halves_wanted = FP16 in plan.precisions or plan.max_size_bytes is not None
    float_bytes = reference[side.float_variant.id].size_bytes
    fill_rungs(found.selection, acceptance, float_bytes, halves_wanted, progress)
    return Done(side, found, reference, report_quality(found.selection, bench, plan.max_drop))


def find(
    builder: Builder,
    planned: Sequence[Candidate],
    floats: Sequence[Form],
    acceptance: Acceptance,
    progress: Progress,
) -> Found:
    """Search, time what is within the budget and fill the first place; again, stricter, while all is refused.

    The same then for the place of what only the targets have instructions for. Raises CandidateFailed, OSError.
    """
    limits, usable = acceptance.limits, builder.usable(planned)

    def look(demand: Demand, kind: str, judged: Collection[Candidate] = (), only_elsewhere: bool = False) -> Found:
        result = search(usable, builder.work(), demand, builder)
        trials = worth_judging(result.trials, demand, judged)
        if only_elsewhere:
            trials = tuple(trial for trial in trials if builder.twins.unknown_on(trial.candidate))
        return Found(result, consider(trials, floats, builder, acceptance.bench, limits, progress, kind))

    def look_again(refused: Sequence[Trial], number: int, only_elsewhere: bool = False) -> Found:
        demand = Demand(limits.max_drop, clearest_db(refused) + CLEARER_DB)
        progress.stage("search", len(usable))
        judged = {trial.candidate for trial in refused}
        return look(demand, f"stricter-{number}", judged, only_elsewhere)

    found, number = look(Demand(limits.max_drop), "candidate"), 1
    while fill_fastest(found.selection, acceptance) and not found.result.out_of_time and number < MOST_ROUNDS:
        stricter = look_again(found.selection.turned_down, number)
        stricter.selection.remember(found.selection)
        found, number = stricter, number + 1
    while fill_elsewhere(found.selection, acceptance) and not found.result.out_of_time and number < MOST_ROUNDS:
        stricter = look_again(found.selection.turned_down, number, only_elsewhere=True)
        found.selection.add(stricter.selection)
        found, number = Found(stricter.result, found.selection), number + 1
    left_out = [Trial(entry, None, problem=NO_CHANGE) for entry in planned if entry not in usable]
    return replace(found, result=replace(found.result, trials=(*found.result.trials, *left_out)))


def _measure(floats: Sequence[Form], bench: Workbench, timings: Mapping[str, Timing]) -> dict[str, Measured]:
    """Measure the original and the float variant. Raises CandidateFailed where the latter fails."""
    return {form.id: measure_form(form, bench, timings, bench.parts.evaluation) for form in floats}
