"""`manifest.json`: what a bundle contains, what each variant needs and what it was measured at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field, model_validator

from autoglm_edge_protocol.digests import Sha256
from autoglm_edge_protocol.documents import Document, Part
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import BundleId, BundleName, BundleVersion, RelativePath
from autoglm_edge_protocol.preprocessing import Preprocessing

MANIFEST_PATH = "manifest.json"
CHUNK_INDEX_PATH = "chunks.json"
GOLDEN_PATH = "golden/golden.npz"


class FileEntry(Part):
    """One file of the bundle."""

    path: RelativePath
    size_bytes: int = Field(ge=0, le=LIMITS.bundle_bytes)
    sha256: Sha256


class Stored(Part):
    """How a variant's file takes or gives a tensor, where that is not what applications see; the device converts."""

    datatype: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9]{1,15}$")
    """Absent: the same."""
    axes: tuple[int, ...] = Field(default=(), max_length=16)
    """Axis i of the file's tensor is axis `axes[i]` of what applications see: (0, 2, 3, 1) for a file in NHWC whose
    applications speak NCHW. Absent: the same order."""
    scale: float | None = Field(default=None, gt=0)
    """Of a whole-number datatype that stands for real numbers: real = scale * (whole - zero_point)."""
    zero_point: int = Field(default=0, ge=-(2**31), lt=2**31)


class TensorSpec(Part):
    """An input or output of a model.

    `datatype` is a name of the Open Inference Protocol (BOOL, UINT8 ... INT64, FP16, FP32, FP64, BYTES); `shape` has
    -1 where a dimension is free.
    """

    name: str = Field(min_length=1, max_length=512)
    datatype: str = Field(pattern=r"^[A-Z][A-Z0-9]{1,15}$")
    shape: tuple[int, ...] = Field(max_length=16)
    stored: Stored | None = None

    @model_validator(mode="after")
    def _permutes(self) -> TensorSpec:
        axes = self.stored.axes if self.stored else ()
        if axes and sorted(axes) != list(range(len(self.shape))):
            raise ValueError(f"{self.name}: {axes} are not the axes of {len(self.shape)} dimensions, each once")
        return self


class State(Part):
    """What a model remembers: an output that goes in again with the next run.

    Applications neither give it nor see it. The device begins with zeros. The golden set of such a variant is one
    sequence, from the beginning.
    """

    input: TensorSpec
    output: str = Field(min_length=1, max_length=512)
    """The output of the same shape and datatype."""

    @model_validator(mode="after")
    def _sized(self) -> State:
        if any(size < 0 for size in self.input.shape) or self.input.stored is not None:
            raise ValueError(f"the state {self.input.name} has a free dimension or another form in the file")
        return self


class Tolerance(Part):
    """How far one output of a variant may be from the reference on the golden set.

    A limit that is absent is not checked, but an output that holds NaN or infinity where the reference does not, or
    has another shape, always fails.
    """

    output: str
    min_sqnr_db: float | None = None
    """Signal to quantization noise over all golden samples, in dB, for floating-point outputs."""
    min_top1_agreement: float | None = Field(default=None, ge=0, le=1)
    """Fraction of rows (all axes but the last) whose largest entry is the reference's."""
    min_equal: float | None = Field(default=None, ge=0, le=1)
    """Fraction of equal elements, for integer and boolean outputs."""


class RuntimeNeeds(Part):
    """What a device must have to run a variant."""

    runtime: str = Field(min_length=1, max_length=64)
    """`onnxruntime`, `litert`, ... ; a device that does not know the name passes the variant over."""
    min_version: str | None = Field(default=None, max_length=64)
    """The oldest version of the runtime that reads the file, `1.18`."""
    alternatives: dict[str, str] = Field(default_factory=dict)
    """Other runtimes that read the same file, and the oldest version of each that does: `{"tflite": "2.14"}`."""
    memory_bytes: int | None = Field(default=None, ge=0)
    """Peak resident memory of a process that runs the variant, as measured by the converter."""
    custom_ops: dict[str, tuple[RelativePath, ...]] = Field(default_factory=dict)
    """Libraries of custom operators by machine (`x86_64`, `aarch64`, `armv7l`, ...), to be loaded into the runtime.
    When there are any, a device of another machine cannot run the variant."""
    custom_op_registerers: dict[RelativePath, str] = Field(default_factory=dict)
    """For LiteRT: by library, the function in it that adds its operators to a resolver."""


class Quality(Part):
    """How well a variant does what the original does."""

    metric: str
    """`top1-agreement`, `fidelity`, `accuracy`, `boxes@0.5`, ... : what `value` is."""
    value: float
    """On samples that took no part in calibration or search, finite; more is better."""
    samples: int = Field(ge=0)
    low: float | None = None
    """With `high`, the ends of the 95 % confidence interval of `value`; absent where it was not measured."""
    high: float | None = None
    baseline: float = 1.0
    """What the original reaches on the same samples: 1 for an agreement, its own accuracy where there are labels."""
    sqnr_db: dict[str, float | None] = Field(default_factory=dict)
    """By output; null where the outputs are identical."""


def common_metric(metrics: Iterable[str]) -> str:
    """Return the metric that all have, `quality` where they differ: with several outputs each has its worst one's."""
    different = set(metrics)
    return different.pop() if len(different) == 1 else "quality"


class Latency(Part):
    """Time of one run, median of interleaved runs, on the machine named."""

    median_us: float = Field(ge=0)
    cpu_us: float | None = Field(default=None, ge=0)
    """Processor time of one run, all threads together."""
    speedup: float = Field(ge=0)
    """Processor time of the float variant divided by this variant's, in the same run."""
    machine: str
    runtime: str
    threads: int = Field(ge=1)
    unknown_on: tuple[str, ...] = Field(default=(), max_length=16)
    """Machines (`aarch64`, `x86_64`, ...) of which the figures do not tell: the variant is made for what their
    processors have and the machine named has not. A device that is one measures before it prefers another variant."""


class Variant(Part):
    """One converted form of the model."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    format: str
    """`onnx`, `tflite`, ..."""
    precision: str
    """`fp32`, `fp16`, `int8`, `mixed`."""
    pruning: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the weights that was taken out."""
    model: RelativePath
    """The file to give to the runtime."""
    files: tuple[RelativePath, ...] = Field(min_length=1)
    """All files the variant consists of, `model` among them."""
    needs: RuntimeNeeds
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[State, ...] = Field(default=(), max_length=64)
    quality: Quality
    latency: Latency
    tolerances: tuple[Tolerance, ...]
    """One for each output, in their order; with none the golden set cannot be replayed, and no device installs it."""
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Variant:
        if self.model not in self.files:
            raise ValueError(f"variant {self.id}: {self.model} is not among its files")
        libraries = {path for paths in self.needs.custom_ops.values() for path in paths}
        if missing := sorted(libraries - set(self.files)):
            raise ValueError(f"variant {self.id}: {missing[0]} is not among its files")
        seen = {tensor.name for tensor in (*self.inputs, *self.outputs)}
        if public := [s.input.name for s in self.states if {s.input.name, s.output} & seen]:
            raise ValueError(f"variant {self.id}: the state {public[0]} is among the inputs or outputs")
        judged = [tolerance.output for tolerance in self.tolerances]
        if judged and judged != [output.name for output in self.outputs]:
            raise ValueError(f"variant {self.id}: not one tolerance for each output, in their order")
        return self


class Source(Part):
    """Where the bundle came from."""

    file: str
    format: str
    size_bytes: int = Field(ge=0)
    sha256: Sha256


class Provenance(Part):
    """How the bundle was made, so that it can be made again."""

    source: Source
    calibration_sha256: Sha256
    converter: str
    versions: dict[str, str] = Field(default_factory=dict)
    plan: dict[str, object] = Field(default_factory=dict)


def _parents(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:depth]) for depth in range(1, len(segments))]


class Manifest(Document):
    """`manifest.json`. Its own digest names the bundle on the wire."""

    kind: ClassVar[str] = "bundle manifest"

    name: BundleName
    version: BundleVersion
    description: str = ""
    variants: tuple[Variant, ...] = Field(min_length=1)
    """Ordered by quality, best first: the ladder that a device climbs down and up."""
    files: tuple[FileEntry, ...] = Field(max_length=LIMITS.bundle_files)
    """Every file but `manifest.json`, `chunks.json` included, sorted by path."""
    golden: RelativePath
    preprocessing: Preprocessing | None = None
    """What made the calibration data from pictures or sounds, for the device to do the same; absent where the data
    were given as the model takes them."""
    labels: RelativePath | None = None
    report: RelativePath | None = None
    license: RelativePath | None = None
    provenance: Provenance

    @property
    def id(self) -> BundleId:
        """The bundle's `name@version`."""
        return BundleId(name=self.name, version=self.version)

    def file(self, path: str) -> FileEntry:
        """Return the entry at `path`. Raises KeyError."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise KeyError(path)

    def variant(self, variant_id: str) -> Variant | None:
        """Return the variant with this id."""
        return next((v for v in self.variants if v.id == variant_id), None)

    def device_files(self, variant: Variant, machine: str | None = None) -> tuple[FileEntry, ...]:
        """Return what a device must have to run `variant`: its files, the golden set, the labels, the licence.

        With a machine (`x86_64`, `aarch64`, ...), libraries of custom operators that are only for others are left out.
        """
        libraries = variant.needs.custom_ops
        foreign = {path for name, paths in libraries.items() if machine not in (None, name) for path in paths}
        own = set(libraries.get(machine, ())) if machine else set()
        wanted = {*variant.files, self.golden, *(path for path in (self.labels, self.license) if path)}
        wanted -= foreign - own - {variant.model}
        return tuple(entry for entry in self.files if entry.path in wanted)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        paths = [entry.path for entry in self.files]
        if len({path.lower() for path in paths}) != len(paths):
            raise ValueError("two files have the same path")
        if inside := sorted({path.lower() for path in paths} & {p.lower() for path in paths for p in _parents(path)}):
            raise ValueError(f"{inside[0]} is both a file and a folder")
        if MANIFEST_PATH in (path.lower() for path in paths):
            raise ValueError("the manifest cannot list itself")
        if len({variant.id for variant in self.variants}) != len(self.variants):
            raise ValueError("two variants have the same id")
        if sum(entry.size_bytes for entry in self.files) > LIMITS.bundle_bytes:
            raise ValueError(f"more than {LIMITS.bundle_bytes} bytes in all")
        named = [self.golden, CHUNK_INDEX_PATH, *(p for p in (self.labels, self.report, self.license) if p)]
        named += [path for variant in self.variants for path in variant.files]
        missing = sorted(set(named) - set(paths))
        if missing:
            raise ValueError(f"{missing[0]} is used but not listed in files")
        return self
