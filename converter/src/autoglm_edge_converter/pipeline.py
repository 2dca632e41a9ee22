"""A conversion from end to end: load, inspect, plan, optimise, quantize, measure, choose, verify, bundle.

The wiring only; each stage is a module of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from autoglm_edge_converter.assemble import Contents, write_bundle
from autoglm_edge_converter.data.example import first_sample
from autoglm_edge_converter.data.reading import Data, read_data
from autoglm_edge_converter.destination import BUNDLE, Destination
from autoglm_edge_converter.errors import ConversionError, OutputUnavailable
from autoglm_edge_converter.explain.survey import Written, survey
from autoglm_edge_converter.formats import format_of
from autoglm_edge_converter.given_precision import open_in_single_precision
from autoglm_edge_converter.golden_set import golden_samples
from autoglm_edge_converter.inspection import weighted_nodes
from autoglm_edge_converter.labels import labels_from_names, read_labels
from autoglm_edge_converter.laboratory import Laboratory, default_workers
from autoglm_edge_converter.loading import Loading, load_original, stem_of
from autoglm_edge_converter.making import Made, lacking_formats, make, no_format, open_cache
from autoglm_edge_converter.memory import memory_watched
from autoglm_edge_converter.naming import bundle_id
from autoglm_edge_converter.operators import in_use
from autoglm_edge_converter.option_rules import check_for_model, check_options
from autoglm_edge_converter.original import FORMATS, ONNX, TFLITE, Original
from autoglm_edge_converter.plan import Plan, plan_for
from autoglm_edge_converter.progress import Progress, Silent
from autoglm_edge_converter.recipes import OPTIMISED
from autoglm_edge_converter.report import Evidence, Pair, Report, collect, render
from autoglm_edge_converter.report.opened_onnx import OpenedOnnx
from autoglm_edge_converter.results import ConversionResult, Measured, Options
from autoglm_edge_converter.verify import verify_bundle
from autoglm_edge_converter.workbench import Workbench, open_workbench
from autoglm_edge_converter.working_folder import working_folder
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import pack


def convert(
    model: Path | str,
    calibration: Path,
    output: Path,
    options: Options = Options(),  # noqa: B008
    progress: Progress = Silent(),  # noqa: B008
) -> ConversionResult:
    """Convert a model into a bundle of verified variants, `OUTPUT/NAME-VERSION/` and `.bundle`.

    `model` is a file, a SavedModel's folder, or `module.py:factory` for PyTorch.

    Raises ConversionError with one line for a user; nothing is left behind then, nor after an interruption.
    """
    check_options(options)
    check_for_model(str(model), options)
    identity = bundle_id(options.name, options.version, stem_of(str(model)))
    destination = Destination(output, f"{identity.name}-{identity.version}", options.force)
    with (
        memory_watched(str(model)),
        in_use(options.ops),
        destination.staged() as staging,
        working_folder() as scratch,
    ):
        progress.stage("load", 3)
        source = load_original(str(model), _loading(options, calibration, scratch), scratch, progress)
        data = read_data(calibration, source.inputs, options.seed, options.data, options.labels)
        progress.step(f"{data.found} samples")
        workers = options.workers or default_workers()
        with Laboratory(data.feeds, scratch, workers, open_cache(options)) as laboratory:

            def opened(original: Original) -> Workbench:
                return open_workbench(original, data, laboratory, scratch, options.metric, options.states)

            bench = open_in_single_precision(source, opened)
            progress.step("the original's answers")
            labels = _labels(options, data, bench)
            notes = (*bench.source.notes, *data.notes, *bench.notes)
            for note in notes:
                progress.note(note)
            made = _explained(make(bench, options, notes, progress), bench)
            progress.stage("bundle", 3)
            contents = _contents(bench, made, options, data, (identity.name, identity.version), labels)
            try:
                manifest = write_bundle(staging / BUNDLE, contents)
                progress.step("variants and golden set")
                outputs = [port.name for port in source.outputs]
                verify_bundle(staging / BUNDLE, outputs, _stand_ins(made))
                progress.step("verified")
                pack(staging / BUNDLE, staging / destination.packed.name)
                destination.publish()
            except OSError as error:
                reason = error.strerror or str(error)
                raise OutputUnavailable(f"cannot write the bundle to {output}: {reason}") from None
            progress.step("packed")
    return ConversionResult(destination.directory, destination.packed, manifest, made.findings)


def plan_conversion(model: Path | str, calibration: Path, options: Options = Options()) -> Plan:  # noqa: B008
    """Return what `convert` would do, without doing it; nodes are those of the model before it is optimised.

    Raises ConversionError.
    """
    check_options(options)
    check_for_model(str(model), options)
    with in_use(options.ops), working_folder() as scratch:
        source = load_original(str(model), _loading(options, calibration, scratch), scratch, Silent())
        data = read_data(calibration, source.inputs, options.seed, options.data, options.labels)
        formats = [form for form in FORMATS if source.rendition(form) is not None]
        if not formats:
            raise no_format(source, lacking_formats(source))
        nodes = weighted_nodes(source.proto.graph) if ONNX in formats else ()
        return plan_for(options, data.parts, nodes, formats, *_tflite_nodes(source))


def _tflite_nodes(source: Original) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the products of the TFLite file, and those that are left in float on trial."""
    rendition = source.rendition(TFLITE)
    if rendition is None or rendition.path is None:
        return (), ()
    from autoglm_edge_converter.tflite.nodes import ends, prepare  # needs packages that ONNX does without

    prepared = prepare(rendition.path.read_bytes())
    return tuple(node.name for node in prepared.nodes), ends(prepared)


def _loading(options: Options, calibration: Path, scratch: Path) -> Loading:
    road: dict[str, object] = dict(options.loading)
    if options.finetune is not None:
        road |= {"finetune": options.finetune, "prune": float(options.prune)}
    unsized = any(size < 0 for _, shape in options.shapes for size in shape[1:])
    if "example_inputs" not in road and (unsized or not options.shapes):
        example = first_sample(calibration, scratch)
        # Beside --shape its sizes alone count: dtypes are as --shape says.
        road |= {"sample" if options.shapes else "example_inputs": str(example)} if example is not None else {}
    return Loading(dict(options.shapes), options.formats, road)


def _explained(made: Made, bench: Workbench) -> Made:
    """Add what became of each operator to the findings."""
    written = [
        Written(entry.measured.id, entry.format, entry.measured.path, entry.measured.candidate)
        for entry in made.shipped
    ]
    floats = made.floats.get(ONNX)
    found = survey(bench.source, made.findings.passes, floats.path if floats else None, written)
    return replace(made, findings=replace(made.findings, explanations=found))


def _stand_ins(made: Made) -> dict[str, Path]:
    shipped = [entry.measured for entry in made.shipped]
    return {item.id: item.stand_in for item in shipped if item.stand_in is not None}


def _labels(options: Options, data: Data, bench: Workbench) -> bytes | None:
    """Return the labels, one a line; one that does not fit is told of before the search. Raises BadOption, OSError."""
    if options.labels is not None:
        return read_labels(options.labels, bench.references)
    return labels_from_names(data.class_names, bench.references)


def _contents(
    bench: Workbench, made: Made, options: Options, data: Data, identity: tuple[str, str], labels: bytes | None
) -> Contents:
    if not made.shipped:
        reasons = "; ".join(f"{entry.precision}: {entry.reason}" for entry in made.findings.refusals)
        vague = "no variant could be given a golden set that tells it from a damaged one"
        raise ConversionError(f"no variant can be shipped: {reasons}" if reasons else vague)
    report = Report(
        name=identity[0],
        version=identity[1],
        source=bench.source.path.name,
        calibration=data.source,
        options=options,
        plan=made.plan,
        measured=tuple(made.measured.values()),
        findings=made.findings,
        source_sha256=bench.source.sha256,
        source_bytes=bench.source.size_bytes,
        evidence=_evidence(bench, made),
        classes=tuple(labels.decode().splitlines()) if labels else (),
    )
    return Contents(
        name=identity[0],
        version=identity[1],
        source=bench.source,
        calibration_sha256=data.digest,
        plan=made.plan.to_dict(),
        shipped=made.shipped,
        golden=golden.save(golden_samples(bench, made.golden)),
        links=bench.links,
        labels=labels,
        license=options.license.read_bytes() if options.license else None,
        ops=options.ops,
        preprocessing=data.preprocessing,
        report=partial(render, report),
    )


def _evidence(bench: Workbench, made: Made) -> Evidence:
    """Look closely at the fastest variant of each format that was shipped, layer by layer."""
    floats = {item.id for item in made.floats.values()}
    others = [entry.measured for entry in made.shipped if entry.measured.id not in floats]
    variants = {item.id: item.answering for item in others}
    pairs = [_pair(bench, form, item.path, others) for form, item in made.floats.items()]
    search = made.findings.search
    sensitive = [entry.node for entry in search.sensitivities] if search else []
    return collect(bench, pairs, variants, sensitive)


def _pair(bench: Workbench, form: str, before: Path, others: Sequence[Measured]) -> Pair:
    alike = [item for item in others if format_of(item.path) == form and (form == ONNX or _of_the_same_file(item))]
    after = max(alike, key=lambda item: item.speedup).answering if alike else None
    if form == ONNX:
        return Pair(form, OpenedOnnx(bench, before), OpenedOnnx(bench, after) if after else None)
    from autoglm_edge_converter.report.opened_tflite import OpenedTflite  # needs packages that ONNX does without
    from autoglm_edge_converter.tflite.nodes import prepare

    rendition = bench.source.rendition(form)
    assert rendition is not None
    assert rendition.path is not None
    names = prepare(rendition.path.read_bytes()).names
    return Pair(form, OpenedTflite(bench, before, names), OpenedTflite(bench, after, names) if after else None)


def _of_the_same_file(item: Measured) -> bool:
    return item.candidate is None or item.candidate.graph == OPTIMISED
