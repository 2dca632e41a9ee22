"""Making the variants, format by format: prepare, search, accept, report. What is decided goes into the findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoglm_edge_converter.acceptance import Acceptance
from autoglm_edge_converter.assemble import Shipped
from autoglm_edge_converter.cache import Cache, FolderCache, NoCache
from autoglm_edge_converter.choose import Limits
from autoglm_edge_converter.errors import ConversionError, MissingPackage
from autoglm_edge_converter.faithful import check_rendition
from autoglm_edge_converter.formats import format_of, unfit
from autoglm_edge_converter.golden_set import golden_positions
from autoglm_edge_converter.measure import time_together
from autoglm_edge_converter.oldest import ready_oldest
from autoglm_edge_converter.onnx_side import prepare_onnx
from autoglm_edge_converter.original import FORMATS, ONNX, TFLITE, Original
from autoglm_edge_converter.plan import Plan, plan_for
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.pruned_graphs import OFF
from autoglm_edge_converter.recipes import SPARSE
from autoglm_edge_converter.results import Considered, Findings, Measured, Options, Refusal
from autoglm_edge_converter.search import joined
from autoglm_edge_converter.searching import Done, search_sides
from autoglm_edge_converter.shipping import (
    by_acceptance,
    float_wanted,
    is_on_8_bits,
    refusals_of,
    ship,
    tell_of_elsewhere,
    tell_of_float_arithmetic,
    tell_of_limits,
    why_not_pruned,
)
from autoglm_edge_converter.sides import Side
from autoglm_edge_converter.targets import demands_of
from autoglm_edge_converter.workbench import Workbench


@dataclass(frozen=True)
class Made:
    """The variants to ship and how they came about."""

    plan: Plan
    measured: dict[str, Measured]
    floats: Mapping[str, Measured]
    """The float variant of each format."""
    shipped: tuple[Shipped, ...]
    golden: tuple[int, ...]
    findings: Findings


Prepare = Callable[[Workbench, Path, Options, Sequence[Side], Progress], Side]
"""Prepares a format, with what was prepared before it."""


def _prepare_tflite(bench: Workbench, path: Path, options: Options, done: Sequence[Side], progress: Progress) -> Side:
    try:
        from autoglm_edge_converter.tflite_side import prepare_tflite  # needs packages that ONNX does without
    except ModuleNotFoundError as error:
        raise MissingPackage("TFLite variants", "tflite", error.name or "ai-edge-litert") from None
    return prepare_tflite(bench, path, options, done, progress)


_PREPARE: dict[str, Prepare] = {ONNX: prepare_onnx, TFLITE: _prepare_tflite}


def make(bench: Workbench, options: Options, notes: Sequence[str], progress: Progress) -> Made:
    """Make everything that is shipped but the bundle. Raises CandidateFailed where even the float variants fail."""
    sides, lacking = _prepare(bench, options, progress)
    formats = [side.format for side in sides]
    nodes = next((side.nodes for side in sides if side.format == ONNX), ())
    tflite_nodes, tflite_ends = next(
        ((side.tflite_nodes, side.tflite_ends) for side in sides if side.format == TFLITE), ((), ())
    )
    plan = plan_for(options, bench.parts, nodes, formats, tflite_nodes, tflite_ends)
    cache = open_cache(options)
    oldest = ready_oldest(plan.demands, options.run_oldest, cache, progress)
    for note in oldest.notes:
        progress.note(note)
    notes = (*notes, *oldest.notes)
    acceptance = Acceptance(bench, limits_of(plan), plan.demands, golden_positions(bench), oldest)
    done = search_sides(sides, acceptance, plan, cache, progress)
    return _finish(done, acceptance, plan, lacking, notes, progress)


def _prepare(bench: Workbench, options: Options, progress: Progress) -> tuple[list[Side], list[Refusal]]:
    """Prepare each format that the original was rendered in; say why another has none. Raises ConversionError."""
    demands = demands_of(options.targets, FORMATS)
    lacking = lacking_formats(bench.source)
    found = [entry for form in FORMATS if (entry := bench.source.rendition(form)) is not None]
    if options.prune != OFF and options.finetune is None and not any(entry.format == ONNX for entry in found):
        lacking.append(Refusal("pruned", "channels are taken out of the ONNX graph, and there is none"))
    sides: list[Side] = []
    for rendition in found:
        assert rendition.path is not None
        problem = check_rendition(bench, rendition)
        if problem is not None:
            lacking.append(Refusal(rendition.format, f"{rendition.road}: {problem}"))
            continue
        side = _PREPARE[rendition.format](bench, rendition.path, options, sides, progress)
        # No recipe takes an operator out or lowers its version, so there is nothing to search either.
        if (problem := unfit(side.float_variant.path, None, demands)) is not None:
            lacking.append(Refusal(rendition.format, problem))
        else:
            sides.append(side)
    if not sides:
        raise no_format(bench.source, lacking)
    return sides, lacking


def lacking_formats(source: Original) -> list[Refusal]:
    """Return the formats that no road led to, with the reason."""
    return [
        Refusal(entry.format, f"{entry.road}: {entry.problem}")
        for entry in source.renditions
        if entry.path is None and not entry.pruning
    ]


def no_format(source: Original, lacking: Sequence[Refusal]) -> ConversionError:
    """Return the error that says why there is no float file at all."""
    told = "; ".join(f"{entry.precision}: {entry.reason}" for entry in lacking)
    return ConversionError(f"{source.path} could not be brought into any format: {told}")


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


def _finish(
    done: Sequence[Done],
    acceptance: Acceptance,
    plan: Plan,
    lacking: Sequence[Refusal],
    notes: Sequence[str],
    progress: Progress,
) -> Made:
    """Put the formats side by side, decide on the float variants, and say what could not be had."""
    bench, golden = acceptance.bench, acceptance.golden
    items = _side_by_side(done, bench)
    variants = sorted((items[v.id] for entry in done for v in entry.reported.variants), key=by_acceptance, reverse=True)
    wanted = [items[entry.float_variant.id] for entry in done if float_wanted(plan, entry.reported.variants)]
    unusable = {item.id: reason for item in wanted if (reason := acceptance.refuse_by_targets(item))}
    leading = [item for item in wanted if item.id not in unusable]
    lacking = (*lacking, *(Refusal(name, reason) for name, reason in unusable.items()))
    refused = {entry.side.format: len(entry.found.selection.refused) if entry.found else 0 for entry in done}
    base = done[0].float_variant.id
    shipped = [
        ship(item, acceptance, plan, base, refused.get(format_of(item.path), 0)) for item in (*leading, *variants)
    ]
    kept = tuple(entry for entry in shipped if entry is not None)
    names = [entry.measured.id for entry in kept]
    told = _told_of_what_lacks(done, plan, names)
    for note in told:
        progress.note(note)
    findings = _findings(done, plan, names, lacking, (*notes, *told))
    for refusal in findings.refusals:
        progress.note(f"no {refusal.precision} variant: {refusal.reason}")
    floats = {entry.side.format: items[entry.float_variant.id] for entry in done}
    return Made(plan, items, floats, kept, golden, findings)


def _side_by_side(done: Sequence[Done], bench: Workbench) -> dict[str, Measured]:
    """Return all that was measured, by id; several formats are timed once more in turns, since they compete."""
    items: dict[str, Measured] = {}
    for entry in done:
        items |= entry.reference
        refused = entry.found.selection.refused if entry.found else ()
        items |= {item.id: item for item in (*refused, *entry.reported.withdrawn, *entry.reported.variants)}
    if len(done) < 2:
        return items
    chosen = [items[item.id] for entry in done for item in (*entry.reference.values(), *entry.reported.variants)]
    base = done[0].float_variant.id
    again = {item.id: item for item in time_together(chosen, base, bench)}
    floats = {entry.side.format: again[entry.float_variant.id].speedup for entry in done}
    left = {name: in_speeds_of(item, floats) for name, item in items.items() if name not in again}
    return items | left | again


def in_speeds_of(item: Measured, floats: Mapping[str, float]) -> Measured:
    """Return what was timed with the float variant of its own format alone as if with all of them.

    `floats`: the speeds of the float variants, by format.
    """
    return replace(item, speedup=item.speedup * floats[format_of(item.path)])


def has_pruned(entry: Done) -> bool:
    """Tell whether there are graphs of a format with channels taken out."""
    return any(graph.name != SPARSE for graph in entry.side.pruned)


def _all_considered(done: Sequence[Done]) -> tuple[Considered, ...]:
    return tuple(one for entry in done if entry.found for one in entry.found.selection.considered)


def _told_of_what_lacks(done: Sequence[Done], plan: Plan, shipped: Sequence[str]) -> list[str]:
    told = []
    pruned_elsewhere = why_not_pruned(plan, _all_considered(done), shipped) is None
    for entry in done:
        if (over := tell_of_limits(entry.float_variant, limits_of(plan))) is not None:
            told.append(over)
        if entry.found is None:
            continue
        considered = entry.found.selection.considered
        lacking = why_not_pruned(plan, considered, shipped) if has_pruned(entry) and pruned_elsewhere else None
        notes = (
            None if lacking is None else f"no pruned variant: {lacking}",
            tell_of_float_arithmetic(entry.found.result, plan.max_drop, considered, shipped),
            tell_of_elsewhere(considered, shipped),
        )
        told += [f"{entry.side.format}: {note}" for note in notes if note is not None]
    return told


def _findings(
    done: Sequence[Done], plan: Plan, shipped: Sequence[str], lacking: Sequence[Refusal], notes: Sequence[str]
) -> Findings:
    refusals: list[Refusal] = list(lacking)
    for entry in done:
        considered = tuple(entry.found.selection.considered) if entry.found else ()
        result = entry.found.result if entry.found else None
        found = refusals_of(plan, result, considered, shipped, entry.float_variant.size_bytes)
        prefix = "" if entry.side.format == ONNX else f"{entry.side.format}-"
        refusals += [replace(refusal, precision=f"{prefix}{refusal.precision}") for refusal in found]
    considered = _all_considered(done)
    if any(map(has_pruned, done)) and (reason := why_not_pruned(plan, considered, shipped)) is not None:
        refusals.append(Refusal("pruned", reason))
    eight = [one.trial for one in considered if one.form in shipped and is_on_8_bits(one)]
    results = [entry.found.result for entry in done if entry.found]
    return Findings(
        passes=tuple(outcome for entry in done for outcome in entry.side.passes),
        search=joined(results).choosing(eight[0] if eight else None) if results else None,
        refusals=tuple(refusals),
        notes=tuple(notes),
        considered=considered,
        pruning=next((entry.side.pruning for entry in done if entry.side.pruning), None),
    )
