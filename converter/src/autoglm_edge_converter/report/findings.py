"""From what a conversion found to the report's plain values: every candidate with why it was dropped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_converter.plan import FP32, Plan
from autoglm_edge_converter.report.document import (
    DROPPED,
    REFERENCE,
    SHIPPED,
    Disagreements,
    Entry,
    Layer,
    Limit,
    Noise,
    Pass,
    ReportDocument,
    with_front,
)
from autoglm_edge_converter.report.evidence import Evidence
from autoglm_edge_converter.results import Findings, Measured, Options
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
    tried = tuple(_tried(trial, search, report.plan.max_drop) for trial in search.trials) if search else ()
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
            "evaluation": len(parts.evaluation),
        },
        entries=marked[: len(entries)],
        tried=marked[len(entries) :],
        refusals=tuple((refusal.precision, refusal.reason) for refusal in report.findings.refusals),
        notes=report.findings.notes,
        passes=tuple(Pass(outcome.name, outcome.dropped) for outcome in report.findings.passes),
        noise=_noise(search, report.evidence.noise),
        sizes=report.evidence.sizes,
        worst=report.evidence.worst,
        disagreements=tuple(_named(entry, report.classes) for entry in report.evidence.disagreements),
        limits=tuple(
            Limit(variant.id, tolerance.output, _limit(tolerance))
            for variant in variants
            for tolerance in variant.tolerances
        ),
        plan=str(report.plan),
        commands=commands(report),
        versions=versions(),
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
        notes=variant.notes if variant else (),
    )


def _why_measured(item: Measured, state: str, report: Report) -> str:
    if state == SHIPPED:
        return "keeps the budget" if item.id != FP32 else "the float variant, same answers"
    if state == REFERENCE:
        return "the model as it was given"
    for refusal in report.findings.refusals:
        if refusal.precision in (item.id, item.precision):
            return refusal.reason
    if item.precision not in report.options.precisions and item.id not in report.options.precisions:
        return f"{item.precision} was not asked for"
    return "another variant serves better"


def _tried(trial: Trial, search: SearchResult, max_drop: float) -> Entry:
    chosen = search.found is not None and trial.candidate == search.found.candidate
    score = trial.score
    return Entry(
        id=str(trial.candidate),
        label=str(trial.candidate),
        state=SHIPPED if chosen else DROPPED,
        reason=_why_tried(trial, chosen, max_drop),
        precision="mixed" if trial.candidate.float_nodes else "int8",
        metric=score.metric if score else None,
        value=score.value if score else None,
        drop=score.drop if score else None,
        samples=score.samples if score else None,
        sqnr_db=score.sqnr_db if score else None,
        size_bytes=trial.size_bytes or None,
        float_nodes=trial.candidate.float_nodes,
    )


def _why_tried(trial: Trial, chosen: bool, max_drop: float) -> str:
    if trial.score is None:
        return trial.problem or "it could not be run"
    if not trial.score.finite:
        return "it gives NaN, infinity or another shape"
    if chosen:
        return "chosen, and measured above"
    if trial.score.drop > max_drop + 1e-9:
        return f"loses {trial.score.drop:.2%}, over the budget"
    return "within the budget, another is better"


def _noise(search: SearchResult | None, measured: Noise) -> Noise:
    entries = search.sensitivities if search else ()
    if not entries:
        return measured
    floats = set(search.found.candidate.float_nodes) if search and search.found else set()
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
        )
        for sample in entry.shown
    )
    return replace(entry, shown=shown)


def _limit(tolerance: Tolerance) -> str:
    parts = []
    if tolerance.min_sqnr_db is not None:
        parts.append(f"{tolerance.min_sqnr_db:.1f} dB to the original")
    if tolerance.min_top1_agreement is not None:
        parts.append(f"{tolerance.min_top1_agreement:.1%} equal top answers")
    if tolerance.min_equal is not None:
        parts.append(f"{tolerance.min_equal:.1%} equal elements")
    return ", ".join(parts)


def commands(report: Report) -> tuple[str, ...]:
    """Return the commands that make this bundle again, beside its inputs, look at it and time it."""
    options = report.options
    words = ["autoglm-edge", "convert", report.source, "--calibration", report.calibration, "--output", "bundles"]
    words += ["--name", report.name, "--version", report.version, "--max-drop", f"{options.max_drop:g}"]
    words += [word for precision in options.precisions for word in ("--precision", precision)]
    for name, shape in options.shapes:
        words += ["--shape", f"{name}={','.join(str(axis) for axis in shape)}"]
    words += ["--labels", options.labels.name] if options.labels else []
    words += ["--license", options.license.name] if options.license else []
    words += [word for library in options.ops.onnxruntime for word in ("--ops", library.name)]
    bundle = f"bundles/{report.name}-{report.version}.bundle"
    return (
        shlex.join([*words, "--seed", str(options.seed)]),
        shlex.join(["autoglm-edge", "bundle", "show", bundle]),
        shlex.join(["autoglm-edge", "bench", bundle]),
    )
