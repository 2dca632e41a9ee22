"""A conversion from end to end: load, inspect, plan, optimise, quantize, measure, choose, verify, bundle.

The wiring only; each stage is a module of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from autoglm_edge_converter.assemble import Contents, Shipped, opset_in, write_bundle
from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.choose import choose, refuse_measured, refuse_search
from autoglm_edge_converter.destination import Destination
from autoglm_edge_converter.errors import BadOption, CandidateFailed, ConversionError, OutputUnavailable
from autoglm_edge_converter.golden_set import choose_golden, golden_samples
from autoglm_edge_converter.inspection import WeightedNode, weighted_nodes
from autoglm_edge_converter.labels import read_labels
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.measure import Form, measure
from autoglm_edge_converter.naming import bundle_id
from autoglm_edge_converter.operators import in_use
from autoglm_edge_converter.optimise import PassOutcome, optimise
from autoglm_edge_converter.passes import PASSES
from autoglm_edge_converter.plan import FP32, INT8, PRECISIONS, Plan, make_plan
from autoglm_edge_converter.progress import Progress, Silent
from autoglm_edge_converter.report import Report, render
from autoglm_edge_converter.results import ConversionResult, Findings, Measured, Options, Refusal
from autoglm_edge_converter.samples import load_samples, samples_digest
from autoglm_edge_converter.search import SearchResult, search
from autoglm_edge_converter.source import load_source
from autoglm_edge_converter.split import Split, notes_on, split
from autoglm_edge_converter.tensors import Feed
from autoglm_edge_converter.tolerance import FLOAT_MARGIN, INT8_MARGIN, tolerances
from autoglm_edge_converter.verify import verify_bundle
from autoglm_edge_converter.workbench import Workbench, open_workbench
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import pack


def convert(
    model: Path,
    calibration: Path,
    output: Path,
    options: Options = Options(),  # noqa: B008
    progress: Progress = Silent(),  # noqa: B008
) -> ConversionResult:
    """Convert an ONNX model into a bundle of verified variants, `OUTPUT/NAME-VERSION/` and `.bundle`.

    Raises ConversionError with one line for a user; nothing is left behind then, nor after an interruption.
    """
    _check_options(options)
    identity = bundle_id(options.name, options.version, model.stem)
    destination = Destination(output, f"{identity.name}-{identity.version}", options.force)
    with in_use(options.ops), destination.staged() as staging:
        progress.stage("load", 3)
        source = load_source(model, dict(options.shapes))
        progress.step(f"{model.name}, opset {source.opset}")
        samples = load_samples(calibration, source.inputs)
        progress.step(f"{len(samples)} samples")
        feeds, parts = _in_use(samples, options.seed)
        with TemporaryDirectory(prefix="autoglm-convert-") as scratch, Laboratory(feeds, Path(scratch)) as laboratory:
            bench = open_workbench(source, feeds, parts, laboratory, Path(scratch))
            progress.step("the original's answers")
            made = _make(bench, options, notes_on(parts, len(samples)), progress)
            progress.stage("bundle", 3)
            contents = _contents(bench, made, options, calibration, (identity.name, identity.version))
            try:
                manifest = write_bundle(staging / "bundle", contents)
                progress.step("variants and golden set")
                verify_bundle(staging / "bundle")
                progress.step("verified")
                packed = staging / destination.packed.name
                pack(staging / "bundle", packed)
                destination.publish(staging / "bundle", packed)
            except OSError as error:
                reason = error.strerror or str(error)
                raise OutputUnavailable(f"cannot write the bundle to {output}: {reason}") from None
            progress.step("packed")
    return ConversionResult(destination.directory, destination.packed, manifest, made.findings)


def _check_options(options: Options) -> None:
    unknown = sorted(set(options.precisions) - set(PRECISIONS))
    if unknown or not options.precisions:
        raise BadOption(f"precision {unknown[0] if unknown else ''!r} is not known: choose {' or '.join(PRECISIONS)}")
    if not 0 <= options.max_drop < 1:
        raise BadOption(f"--max-drop is a fraction from 0 to 1, not {options.max_drop:g}: 0.01 allows one percent")
    if options.seed < 0:
        raise BadOption("--seed is a number from 0 up")
    for path in (options.labels, options.license):
        if path is not None and not path.is_file():
            raise BadOption(f"{path} is not a file")


def _in_use(samples: Sequence[Feed], seed: int) -> tuple[tuple[Feed, ...], Split]:
    """Return the samples in use and the split as indices into them."""
    largest = max(sum(array.nbytes for array in sample.values()) for sample in samples)
    parts = split(len(samples), seed, largest)
    place = {index: position for position, index in enumerate(parts.used)}
    moved = [tuple(place[index] for index in part) for part in (parts.calibration, parts.search, parts.evaluation)]
    return tuple(samples[index] for index in parts.used), Split(*moved)


@dataclass(frozen=True)
class _Made:
    """The variants to ship and how they came about."""

    plan: Plan
    float_model: onnx.ModelProto
    measured: dict[str, Measured]
    shipped: tuple[Shipped, ...]
    golden: tuple[int, ...]
    findings: Findings


def _make(bench: Workbench, options: Options, notes: tuple[str, ...], progress: Progress) -> _Made:
    outcomes: list[PassOutcome] = []
    float_model = _optimise(bench, outcomes, progress)
    nodes = weighted_nodes(float_model.graph)
    plan = make_plan(options.precisions, options.max_drop, options.seed, bench.parts, nodes)
    forms = [Form("original", FP32, bench.original), Form(FP32, FP32, bench.write(float_model, FP32))]
    found = None
    if plan.recipes:
        found, int8 = _quantize(bench, float_model, nodes, plan, progress)
        forms += [int8] if int8 else []
    refusal = refuse_search(found, plan.max_drop) if INT8 in plan.precisions else None
    progress.stage("measure", 1 + len(forms))
    measured, problems = measure(tuple(forms), bench, progress)
    if FP32 not in measured:
        raise CandidateFailed(f"the float variant cannot be measured: {problems[FP32]}")
    if refusal is None and INT8 in plan.precisions:
        refusal = _refuse(measured, problems, plan)
    chosen = _golden_positions(bench)
    kept = choose(plan.precisions, measured, [refusal] if refusal else [])
    shipped = tuple(entry for entry in (_ship(item, bench, chosen, found) for item in kept) if entry is not None)
    if len(shipped) < len(kept):
        refusal = Refusal(INT8, "its answers on the golden set are so far off that damage could not be told from them")
        shipped = shipped or tuple(filter(None, [_ship(measured[FP32], bench, chosen, found)]))
    if refusal is not None:
        progress.note(f"no {refusal.precision} variant: {refusal.reason}")
    findings = Findings(tuple(outcomes), found, (refusal,) if refusal else (), notes)
    return _Made(plan, float_model, measured, shipped, chosen, findings)


def _optimise(bench: Workbench, outcomes: list[PassOutcome], progress: Progress) -> onnx.ModelProto:
    progress.stage("optimise", len(PASSES))

    def done(outcome: PassOutcome) -> None:
        outcomes.append(outcome)
        progress.step(outcome.name)
        if outcome.dropped:
            progress.note(f"{outcome.name} dropped: {outcome.dropped}")

    return optimise(bench.source.proto, tuple(PASSES), bench.check, done)


def _quantize(
    bench: Workbench, float_model: onnx.ModelProto, nodes: Sequence[WeightedNode], plan: Plan, progress: Progress
) -> tuple[SearchResult, Form | None]:
    progress.stage("quantize", len(bench.parts.calibration) + len(plan.recipes))
    candidates = Candidates(float_model, nodes, bench, progress)
    recipes = candidates.usable(plan.recipes)
    found = search(recipes, candidates.work(), plan.max_drop, candidates.attempt, candidates.rank)
    if found.found is None:
        return found, None
    winner = found.found.candidate
    candidates.build(winner, INT8)
    precision = "mixed" if winner.float_nodes else INT8
    return found, Form(INT8, precision, bench.scratch / f"{INT8}.onnx")


def _refuse(measured: dict[str, Measured], problems: dict[str, str], plan: Plan) -> Refusal | None:
    if INT8 not in measured:
        return Refusal(INT8, f"it fails when measured: {problems[INT8]}")
    return refuse_measured(measured[INT8], measured[FP32], plan.max_drop)


def _golden_positions(bench: Workbench) -> tuple[int, ...]:
    """Return indices of the golden samples; they come from the held-back part, which nothing was tuned on."""
    held_back = bench.parts.evaluation
    sizes = [
        sum(array.nbytes for array in (*bench.feeds[index].values(), *bench.references[index])) for index in held_back
    ]
    positions = choose_golden(tuple(bench.references[index] for index in held_back), sizes)
    return tuple(held_back[position] for position in positions)


def _ship(item: Measured, bench: Workbench, chosen: Sequence[int], found: SearchResult | None) -> Shipped | None:
    margin = FLOAT_MARGIN if item.id == FP32 else INT8_MARGIN
    limits = tolerances(bench.score(item.path, chosen), margin)
    if limits is None:
        return None
    notes: tuple[str, ...] = ()
    if item.id == INT8 and found is not None and found.found is not None:
        winner = found.found.candidate
        notes = (f"recipe: {winner.recipe}",)
        notes += (f"kept in float: {', '.join(winner.float_nodes)}",) if winner.float_nodes else ()
    return Shipped(item, limits, notes, opset_in(item.path))


def _contents(
    bench: Workbench, made: _Made, options: Options, calibration: Path, identity: tuple[str, str]
) -> Contents:
    if not made.shipped:
        raise ConversionError("no variant could be given a golden set that tells it from a damaged one")
    chosen_feeds = [bench.feeds[index] for index in made.golden]
    names = [port.name for port in bench.source.inputs]
    answers = [bench.references[index] for index in made.golden]
    report = Report(
        name=identity[0],
        version=identity[1],
        source=bench.source.path.name,
        calibration=calibration.name,
        options=options,
        plan=made.plan,
        measured=tuple(made.measured.values()),
        findings=made.findings,
    )
    return Contents(
        name=identity[0],
        version=identity[1],
        source=replace(bench.source),
        calibration_sha256=samples_digest(calibration),
        plan=made.plan.to_dict(),
        shipped=made.shipped,
        golden=golden.save(golden_samples(names, chosen_feeds, tuple(answers))),
        labels=read_labels(options.labels, bench.references) if options.labels else None,
        license=options.license.read_bytes() if options.license else None,
        ops=options.ops,
        report=partial(render, report),
    )
