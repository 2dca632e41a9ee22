"""Making the variants, stage by stage: optimise, search, accept, report. What is decided goes into the findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from autoglm_edge_converter.acceptance import Acceptance
from autoglm_edge_converter.assemble import Shipped
from autoglm_edge_converter.cache import Cache, FolderCache, NoCache
from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.choose import Limits
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.float_graphs import FloatGraph
from autoglm_edge_converter.golden_set import golden_positions
from autoglm_edge_converter.inspection import weighted_nodes
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.measure import FP32, ORIGINAL, Form, measure_form, time_forms
from autoglm_edge_converter.optimise import PassOutcome, optimise
from autoglm_edge_converter.passes import passes_for
from autoglm_edge_converter.plan import FP16, Plan, plan_for
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.pruned_graphs import Pruning, pruned_graphs
from autoglm_edge_converter.recipes import OPTIMISED, Candidate
from autoglm_edge_converter.results import Findings, Measured, Options
from autoglm_edge_converter.rungs import fill_fastest, fill_rungs
from autoglm_edge_converter.search import SearchResult, search
from autoglm_edge_converter.selection import Builder, Selection, consider
from autoglm_edge_converter.shipping import (
    Reported,
    float_wanted,
    is_on_8_bits,
    refusals_of,
    report_quality,
    ship,
)
from autoglm_edge_converter.targets import demands_of
from autoglm_edge_converter.workbench import Workbench

STRICTER = 0.25
"""The part of the budget that is searched for again when all that was within it failed on the acceptance samples."""


@dataclass(frozen=True)
class Made:
    """The variants to ship and how they came about."""

    plan: Plan
    float_model: onnx.ModelProto
    measured: dict[str, Measured]
    shipped: tuple[Shipped, ...]
    golden: tuple[int, ...]
    findings: Findings


@dataclass(frozen=True)
class Found:
    """What one builder's search found, and which of it was timed and chosen."""

    result: SearchResult
    selection: Selection


@dataclass(frozen=True)
class Prepared:
    """The float side of a conversion, before anything is searched."""

    plan: Plan
    float_model: onnx.ModelProto
    graphs: tuple[FloatGraph, ...]
    floats: tuple[Form, ...]
    """The original and the float variant."""
    passes: tuple[PassOutcome, ...]
    pruning: Pruning | None


def make(bench: Workbench, options: Options, notes: Sequence[str], progress: Progress) -> Made:
    """Make everything that is shipped but the bundle. Raises CandidateFailed where even the float variant fails."""
    prepared = _prepare(bench, options, progress)
    plan = prepared.plan
    acceptance = Acceptance(bench, limits_of(plan), plan.demands, golden_positions(bench))
    found = None
    planned = plan.candidates([graph.name for graph in prepared.graphs if graph.name != OPTIMISED])
    if planned:
        steps = len(bench.parts.calibration) * (1 + len(prepared.graphs)) + len(planned)
        progress.stage("search", steps)
        builder = Candidates(prepared.graphs, bench, progress, Deadline(plan.budget_s), open_cache(options))
        found = find(builder, planned, prepared.floats, acceptance, progress)
        if found.result.out_of_time:
            progress.note(f"the search ended after {plan.budget_s:g} s: a larger --budget-s may find better")
    reference = _measure_floats(prepared.floats, bench, found.selection.timings if found else None, progress)
    if found:
        halves_wanted = FP16 in plan.precisions or plan.max_size_bytes is not None
        fill_rungs(found.selection, acceptance, reference[FP32].size_bytes, halves_wanted, progress)
    return _finish(prepared, bench, acceptance.golden, reference, found, notes, progress)


def _prepare(bench: Workbench, options: Options, progress: Progress) -> Prepared:
    outcomes: list[PassOutcome] = []
    float_model = _optimise(bench, outcomes, demands_of(options.targets).newest_opset, progress)
    plan = plan_for(options, bench.parts, weighted_nodes(float_model.graph))
    floats = (Form(ORIGINAL, FP32, bench.original), Form(FP32, FP32, bench.write(float_model, FP32)))
    pruned, pruning = pruned_graphs(float_model, bench, options.prune, plan.max_drop, plan.seed, progress)
    graphs = (FloatGraph(OPTIMISED, float_model), *pruned)
    return Prepared(plan, float_model, graphs, floats, tuple(outcomes), pruning)


def _optimise(bench: Workbench, outcomes: list[PassOutcome], newest_opset: int, progress: Progress) -> onnx.ModelProto:
    passes = passes_for(newest_opset)
    progress.stage("optimise", len(passes))

    def done(outcome: PassOutcome) -> None:
        outcomes.append(outcome)
        progress.step(outcome.name)
        if outcome.dropped:
            progress.note(f"{outcome.name} dropped: {outcome.dropped}")

    return optimise(bench.source.proto, passes, bench.check, done, newest_opset)


def open_cache(options: Options) -> Cache:
    """Return the cache that the options ask for, trimmed to its bound."""
    if options.cache is None:
        return NoCache()
    cache = FolderCache(options.cache)
    cache.trim()
    return cache


def limits_of(plan: Plan) -> Limits:
    """Return what the plan asks of a variant."""
    latency_us = None if plan.max_latency_ms is None else plan.max_latency_ms * 1000
    return Limits(plan.max_drop, plan.max_size_bytes, latency_us)


def find(
    builder: Builder,
    planned: Sequence[Candidate],
    floats: Sequence[Form],
    acceptance: Acceptance,
    progress: Progress,
) -> Found:
    """Search, time what is within the budget and fill the first place; once more, stricter, where all is refused.

    Raises CandidateFailed, OSError.
    """
    limits, usable = acceptance.limits, builder.usable(planned)

    def once(max_drop: float) -> Found:
        result = search(usable, builder.work(), max_drop, builder)
        return Found(result, consider(result.trials, floats, builder, acceptance.bench, limits, progress))

    first = once(limits.max_drop)
    if not fill_fastest(first.selection, acceptance) or first.result.out_of_time:
        return first
    progress.stage("search", len(usable))
    second = once(limits.max_drop * STRICTER)
    second.selection.refused.extend(first.selection.refused)
    fill_fastest(second.selection, acceptance)
    return second


def _measure_floats(
    floats: Sequence[Form], bench: Workbench, timings: Mapping[str, Timing] | None, progress: Progress
) -> dict[str, Measured]:
    """Measure the original and the float variant. Raises CandidateFailed where the latter fails."""
    if timings is None:
        progress.stage("measure", 1)
        timings, _ = time_forms(floats, bench)
        progress.step("latency")
    return {form.id: measure_form(form, bench, timings, bench.parts.evaluation) for form in floats}


def _finish(
    prepared: Prepared,
    bench: Workbench,
    golden: tuple[int, ...],
    reference: dict[str, Measured],
    found: Found | None,
    notes: Sequence[str],
    progress: Progress,
) -> Made:
    """Report on what was chosen, decide on the float variant, and say what could not be had."""
    plan = prepared.plan
    reported = report_quality(found.selection, bench, plan.max_drop) if found else Reported(())
    refused = found.selection.refused if found else []
    leading = (reference[FP32],) if float_wanted(plan, reported.variants) else ()
    shipped = [ship(item, bench, golden, plan, len(refused)) for item in (*leading, *reported.variants)]
    kept = tuple(entry for entry in shipped if entry is not None)
    findings = _findings(prepared, found, [entry.measured.id for entry in kept], reference[FP32].size_bytes, notes)
    for refusal in findings.refusals:
        progress.note(f"no {refusal.precision} variant: {refusal.reason}")
    everything = (*reference.values(), *refused, *reported.withdrawn, *reported.variants)
    return Made(plan, prepared.float_model, {item.id: item for item in everything}, kept, golden, findings)


def _findings(
    prepared: Prepared, found: Found | None, shipped: Sequence[str], float_bytes: int, notes: Sequence[str]
) -> Findings:
    considered = tuple(found.selection.considered) if found else ()
    refusals = refusals_of(prepared.plan, found.result if found else None, considered, shipped, float_bytes)
    eight = [entry.trial for entry in considered if entry.form in shipped and is_on_8_bits(entry)]
    result = found.result.choosing(eight[0] if eight else None) if found else None
    return Findings(prepared.passes, result, refusals, tuple(notes), considered, prepared.pruning)
