"""From what a conversion found to the report's plain values: every candidate with why it was dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoglm_edge_converter.formats import format_of
from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_converter.plan import Plan
from autoglm_edge_converter.pruned_graphs import Pruning
from autoglm_edge_converter.report.command import commands
from autoglm_edge_converter.report.document import (
    DROPPED,
    REFERENCE,
    SHIPPED,
    Disagreements,
    Entry,
    Layer,
    Layers,
    Limit,
    Noise,
    Pass,
    PrunedGroup,
    PruningReport,
    ReportDocument,
    with_front,
)
from autoglm_edge_converter.report.evidence import Evidence
from autoglm_edge_converter.results import Considered, Findings, Measured, Options
from autoglm_edge_converter.search import SearchResult, Trial
from autoglm_edge_protocol.manifest import Tolerance, Variant

ORIGINAL = "original"
ALONE = "noise in the model's answers when this layer alone is quantized"


@dataclass(frozen=True)
class Report:
    """What the report tells, besides the variants as they stand in the manifest."""

    name: str
    version: str
    source: str
    calibration: str
    options: Options
    plan: Plan
    measured: tuple[Measured, ...]
    findings: Findings
    source_sha256: str = ""
    source_bytes: int | None = None
    evidence: Evidence = field(default_factory=Evidence)
    classes: tuple[str, ...] = ()
    """Names of the classes, where they are known."""


def document(report: Report, variants: Sequence[Variant]) -> ReportDocument:
    """Return the report as plain values."""
    shipped = {variant.id: variant for variant in variants}
    entries = tuple(_measured(item, shipped, report) for item in report.measured)
    search = report.findings.search
    timed = {entry.trial.candidate: entry for entry in report.findings.considered}
    tried = (
        tuple(_tried(trial, timed.get(trial.candidate), report.plan.max_drop) for trial in search.trials)
        if search
        else ()
    )
    marked = with_front((*entries, *tried))
    parts = report.plan.parts
    return ReportDocument(
        name=report.name,
        version=report.version,
        source={"file": report.source, "size_bytes": report.source_bytes, "sha256": report.source_sha256},
        machine=machine_name(),
        max_drop=report.plan.max_drop,
        samples={
            "calibration": len(parts.calibration),
            "search": len(parts.search),
            "acceptance": len(parts.acceptance),
            "evaluation": len(parts.evaluation),
        },
        entries=marked[: len(entries)],
        tried=marked[len(entries) :],
        refusals=tuple((refusal.precision, refusal.reason) for refusal in report.findings.refusals),
        notes=(*report.findings.notes, *_late(search)),
        passes=tuple(Pass(outcome.name, outcome.dropped) for outcome in report.findings.passes),
        layers=tuple(replace(entry, noise=_noise(report.findings, entry)) for entry in report.evidence.layers),
        disagreements=tuple(_named(entry, report.classes) for entry in report.evidence.disagreements),
        limits=tuple(
            Limit(variant.id, tolerance.output, _limit(tolerance))
            for variant in variants
            for tolerance in variant.tolerances
        ),
        plan=str(report.plan),
        commands=commands(report.name, report.version, report.source, report.calibration, report.options),
        pruning=_pruning(report.findings.pruning),
        versions=versions(),
        explanations=report.findings.explanations,
    )


def _measured(item: Measured, shipped: Mapping[str, Variant], report: Report) -> Entry:
    variant = shipped.get(item.id)
    state = SHIPPED if variant else REFERENCE if item.id == ORIGINAL else DROPPED
    interval = item.quality.interval
    return Entry(
        id=item.id,
        label=item.id,
        state=state,
        reason=_why_measured(item, state, report),
        precision=item.precision,
        format=format_of(item.path),
        metric=item.quality.metric,
        value=item.quality.value,
        drop=item.quality.drop,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        samples=item.quality.samples,
        sqnr_db=item.quality.sqnr_db,
        size_bytes=item.size_bytes,
        median_us=item.timing.wall_us if item.timing else None,
        cpu_us=item.timing.cpu_us if item.timing else None,
        speedup=item.speedup or None,
        memory_bytes=item.memory_bytes,
        notes=tuple(note for note in variant.notes if note != item.purpose) if variant else (),
    )


def _why_measured(item: Measured, state: str, report: Report) -> str:
    if state == SHIPPED:
        return item.purpose or "the float variant, same answers"
    if state == REFERENCE:
        return "the model as it was given"
    for entry in report.findings.considered:
        if entry.form == item.id:
            return entry.outcome
    for refusal in report.findings.refusals:
        if refusal.precision in (item.id, item.precision):
            return refusal.reason
    if item.precision not in report.options.precisions:
        return f"{item.precision} was not asked for"
    return "another variant serves better"


def _tried(trial: Trial, timed: Considered | None, max_drop: float) -> Entry:
    chosen = timed is not None and timed.outcome == SHIPPED
    score = trial.score
    timing = timed.timing if timed else None
    return Entry(
        id=str(trial.candidate),
        label=str(trial.candidate),
        state=SHIPPED if chosen else DROPPED,
        reason=_why_tried(trial, timed, max_drop),
        precision=trial.candidate.precision,
        format=trial.candidate.format,
        metric=score.metric if score else None,
        value=score.value if score else None,
        drop=score.drop if score else None,
        samples=score.samples if score else None,
        sqnr_db=score.sqnr_db if score else None,
        size_bytes=(timed.size_bytes if timed else trial.size_bytes) or None,
        median_us=timing.wall_us if timing else None,
        cpu_us=timing.cpu_us if timing else None,
        speedup=(timed.speedup or None) if timed else None,
        float_nodes=trial.candidate.float_nodes,
    )


def _why_tried(trial: Trial, timed: Considered | None, max_drop: float) -> str:
    if timed is not None:
        return f"measured above as {timed.form}" if timed.outcome == SHIPPED else timed.outcome
    if trial.score is None:
        return trial.problem or "it could not be run"
    if not trial.score.finite:
        return "it gives NaN, infinity or another shape"
    if trial.score.drop > max_drop + 1e-9:
        return f"loses {trial.score.drop:.2%}, over the budget"
    return "within the budget, not timed: another of its kind is better"


def _late(search: SearchResult | None) -> tuple[str, ...]:
    if search is None or not search.out_of_time:
        return ()
    return ("the time for the search was up before everything was tried; --budget-s gives it more",)


def _noise(findings: Findings, measured: Layers) -> Noise:
    """Return the noise of each layer alone where the search found it out for this format."""
    own = {layer.name for layer in measured.sizes}
    known = findings.search.sensitivities if findings.search else ()
    entries = [entry for entry in known if entry.node in own]
    if not entries:
        return measured.noise
    shipped = [entry.trial.candidate for entry in findings.considered if entry.outcome == SHIPPED]
    floats = {name for one in shipped if one.format == measured.format for name in one.float_nodes}
    layers = tuple(
        Layer(entry.node, entry.operator, entry.sqnr_db, entry.problem, entry.node in floats) for entry in entries
    )
    return Noise(ALONE, layers)


def _named(entry: Disagreements, classes: Sequence[str]) -> Disagreements:
    def name(label: str) -> str:
        return classes[int(label)] if label.isdigit() and int(label) < len(classes) else label

    shown = tuple(
        replace(
            sample,
            original=tuple(replace(answer, label=name(answer.label)) for answer in sample.original),
            variant=tuple(replace(answer, label=name(answer.label)) for answer in sample.variant),
            truth=None if sample.truth is None else name(sample.truth),
        )
        for sample in entry.shown
    )
    return replace(entry, shown=shown)


def _pruning(found: Pruning | None) -> PruningReport | None:
    if found is None:
        return None
    groups = tuple(PrunedGroup(group.layers, group.before, group.after, group.reason) for group in found.groups)
    return PruningReport(found.weights_removed, found.multiplications_removed, found.reason, groups)


def _limit(tolerance: Tolerance) -> str:
    parts = []
    if tolerance.min_sqnr_db is not None:
        parts.append(f"{tolerance.min_sqnr_db:.1f} dB to the original")
    if tolerance.min_top1_agreement is not None:
        parts.append(f"{tolerance.min_top1_agreement:.1%} equal top answers")
    if tolerance.min_equal is not None:
        parts.append(f"{tolerance.min_equal:.1%} equal elements")
    return ", ".join(parts)
