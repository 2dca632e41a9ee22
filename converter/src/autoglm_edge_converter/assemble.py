"""Writing a bundle: variants, golden set, labels, licence, report, chunk index and manifest, in that order.

The directory given is a staging one; nothing here moves it to its final place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoglm_edge_converter.formats import format_of, installed_runtime, readers_of
from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_converter.operators import CustomOperators, bundle_path, machine_of
from autoglm_edge_converter.original import ONNX, TFLITE, Original
from autoglm_edge_converter.remembering import Link
from autoglm_edge_converter.results import Measured
from autoglm_edge_converter.variant_ports import ports_of
from autoglm_edge_protocol.bundle import list_files
from autoglm_edge_protocol.chunk_index import write_chunk_index
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import (
    GOLDEN_PATH,
    MANIFEST_PATH,
    Latency,
    Manifest,
    Provenance,
    Quality,
    RuntimeNeeds,
    Source,
    Tolerance,
    Variant,
)
from autoglm_edge_protocol.preprocessing import Preprocessing

LABELS_PATH, LICENSE_PATH, REPORT_PATH = "labels.txt", "LICENSE", "report.html"


@dataclass(frozen=True)
class Shipped:
    """A variant to be written."""

    measured: Measured
    tolerances: tuple[Tolerance, ...]
    notes: tuple[str, ...]

    @property
    def format(self) -> str:
        """Of `original.FORMATS`."""
        return format_of(self.measured.path)

    @property
    def path(self) -> str:
        """Where its model lies in the bundle."""
        return f"variants/{self.measured.id}/model.{self.format}"


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle."""

    name: str
    version: str
    source: Original
    calibration_sha256: str
    plan: dict[str, object]
    shipped: tuple[Shipped, ...]
    golden: bytes
    labels: bytes | None
    license: bytes | None
    preprocessing: Preprocessing | None
    report: Callable[[tuple[Variant, ...]], Mapping[str, bytes]]
    ops: CustomOperators = field(default_factory=CustomOperators)
    links: tuple[Link, ...] = ()
    """The model's states."""


def write_bundle(directory: Path, contents: Contents) -> Manifest:
    """Write the bundle into an empty directory and return its manifest. Raises OSError."""
    disk = Disk()
    variants = tuple(describe(shipped, contents.source, contents.ops, contents.links) for shipped in contents.shipped)
    files: dict[str, bytes] = {entry.path: entry.measured.path.read_bytes() for entry in contents.shipped}
    files[GOLDEN_PATH] = contents.golden
    files |= contents.report(variants)
    if contents.labels is not None:
        files[LABELS_PATH] = contents.labels
    for known in (contents.ops.by_machine(), contents.ops.litert_by_machine()):
        for machine, libraries in known.items():
            files |= {bundle_path(machine, library): library.read_bytes() for library in libraries}
    if contents.license is not None:
        files[LICENSE_PATH] = contents.license
    for path, data in files.items():
        disk.make_directories((directory / path).parent)
        disk.commit(directory / path, data)
    entries = list_files(directory, files)
    index = write_chunk_index(directory, entries)
    manifest = Manifest(
        name=contents.name,
        version=contents.version,
        variants=variants,
        files=tuple(sorted((*entries, index), key=lambda entry: entry.path)),
        golden=GOLDEN_PATH,
        preprocessing=contents.preprocessing,
        labels=LABELS_PATH if contents.labels is not None else None,
        report=REPORT_PATH,
        license=LICENSE_PATH if contents.license is not None else None,
        provenance=_provenance(contents),
    )
    disk.commit(directory / MANIFEST_PATH, manifest.to_text().encode())
    return manifest


def _provenance(contents: Contents) -> Provenance:
    source = contents.source
    tools = versions() | dict(source.versions)
    return Provenance(
        source=Source(
            file=source.path.name, format=source.framework, size_bytes=source.size_bytes, sha256=source.sha256
        ),
        calibration_sha256=contents.calibration_sha256,
        converter=f"autoglm-edge-converter {tools['autoglm-edge-converter']}",
        versions=tools,
        plan=contents.plan,
    )


def describe(
    shipped: Shipped,
    source: Original,
    ops: CustomOperators = CustomOperators(),  # noqa: B008
    links: Sequence[Link] = (),
) -> Variant:
    """Return the manifest's entry of a variant. Raises OSError."""
    measured = shipped.measured
    libraries = _placed(ops.by_machine())
    custom_ops = libraries if shipped.format == ONNX else _placed(ops.litert_by_machine())
    readers = readers_of(measured.path)
    ports = ports_of(measured.path, source, links)
    return Variant(
        id=measured.id,
        format=shipped.format,
        precision=measured.precision,
        model=shipped.path,
        files=(shipped.path, *(path for paths in custom_ops.values() for path in paths)),
        needs=RuntimeNeeds(
            runtime=readers.runtime,
            min_version=readers.oldest,
            alternatives=dict(readers.others),
            memory_bytes=measured.memory_bytes,
            custom_ops=custom_ops,
            custom_op_registerers=_registerers(ops) if shipped.format == TFLITE else {},
        ),
        inputs=ports.inputs,
        outputs=ports.outputs,
        states=ports.states,
        quality=_quality(measured),
        latency=_latency(measured),
        pruning=round(measured.pruning, 6),
        tolerances=shipped.tolerances,
        notes=shipped.notes,
    )


def _placed(libraries: Mapping[str, tuple[Path, ...]]) -> dict[str, tuple[str, ...]]:
    """Return where libraries lie in the bundle, by machine."""
    return {machine: tuple(bundle_path(machine, path) for path in paths) for machine, paths in libraries.items()}


def _registerers(ops: CustomOperators) -> dict[str, str]:
    return {bundle_path(machine_of(entry.library), entry.library): entry.function for entry in ops.litert}


def _quality(measured: Measured) -> Quality:
    score = measured.quality
    noise = {entry.output: None if entry.sqnr_db is None else round(entry.sqnr_db, 2) for entry in score.outputs}
    low, high = (round(end, 6) for end in score.interval) if score.interval else (None, None)
    return Quality(
        metric=score.metric,
        value=round(score.value, 6),
        samples=score.samples,
        low=low,
        high=high,
        baseline=round(score.baseline, 6),
        sqnr_db=noise,
    )


def _latency(measured: Measured) -> Latency:
    timing = measured.timing
    return Latency(
        median_us=round(timing.wall_us, 1) if timing else 0.0,
        cpu_us=round(timing.cpu_us, 1) if timing else None,
        speedup=round(measured.speedup, 3),
        machine=machine_name(),
        runtime=installed_runtime(format_of(measured.path)),
        threads=1,
        unknown_on=measured.unknown_on,
    )
