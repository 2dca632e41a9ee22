"""Bundles with a real model that ONNX Runtime runs: a linear layer whose right answers numpy knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tests.fakes.onnx_writer import OPSET, linear_model

from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import list_files
from autoglm_edge_protocol.chunk_index import write_chunk_index
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.golden import GoldenSample
from autoglm_edge_protocol.manifest import (
    GOLDEN_PATH,
    MANIFEST_PATH,
    Latency,
    Manifest,
    Provenance,
    Quality,
    RuntimeNeeds,
    Source,
    TensorSpec,
    Tolerance,
    Variant,
)

Array = npt.NDArray[np.float32]

MODEL_PATH = "variants/fp32/model.onnx"
RIVAL_PATH = "variants/rival/model.onnx"


@dataclass(frozen=True)
class ModelBundle:
    """A bundle directory and what its model computes."""

    directory: Path
    weights: Array
    bias: Array
    body: Array | None = None

    @property
    def reference(self) -> BundleReference:
        data = (self.directory / MANIFEST_PATH).read_bytes()
        manifest = Manifest.model_validate_json(data)
        return BundleReference(
            name=manifest.name,
            version=manifest.version,
            manifest_sha256=sha256_of(data),
            manifest_size_bytes=len(data),
        )

    def expected(self, x: Array) -> Array:
        return np.asarray((x if self.body is None else x @ self.body) @ self.weights + self.bias, dtype=np.float32)


def make_model_bundle(
    directory: Path,
    name: str = "linear",
    version: str = "1.0.0",
    *,
    width: int = 64,
    seed: int = 0,
    repeat: int = 1,
    body: int | None = None,
    note: str = "",
    damage: bool = False,
    model_bytes: bytes | None = None,
    golden_bytes: bytes | None = None,
    memory_bytes: int | None = None,
    runtime: str = "onnxruntime",
    form: str = "onnx",
) -> ModelBundle:
    """Write a bundle of one variant, `fp32`, [N, width] -> [N, 10].

    `damage` ships other weights than those that the golden set was made with: well-formed, digests right, wrong.
    `body` puts a square layer of `width` before the others, random by this number alone; `note` is text before the
    tensors. `model_bytes` ships these bytes as the model, `golden_bytes` these as the golden set. The model has
    about 4 * width * 10 bytes, without a body. `runtime` and `form` are what the variant says of itself.
    """
    random = np.random.default_rng(seed)
    outputs = 10 if repeat == 1 else width
    weights = random.standard_normal((width, outputs), dtype=np.float32) / np.float32(width**0.5)
    bias = random.standard_normal(outputs, dtype=np.float32)
    square = None if body is None else _body(width, body)
    shipped = weights[::-1].copy() if damage else weights
    model = linear_model(shipped, bias, repeat, square, note) if model_bytes is None else model_bytes
    reference = golden.save(_golden(weights, bias, repeat, square, random)) if golden_bytes is None else golden_bytes
    variant = _variant(width, outputs, memory_bytes, runtime, form)
    write_bundle(directory, name, version, model, reference, variant)
    return ModelBundle(directory, weights, bias, square)


def make_bundle_of(
    directory: Path,
    name: str,
    model: bytes,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> BundleReference:
    """Write a bundle of any model, which is not to be tried out: its golden set is empty."""
    return write_bundle(directory, name, "1.0.0", model, b"", _variant_of(inputs, outputs, None))


def write_bundle(
    directory: Path, name: str, version: str, model: bytes, reference: bytes, variant: Variant
) -> BundleReference:
    """Write the files of a bundle around a model and its golden set."""
    files = {MODEL_PATH: model, GOLDEN_PATH: reference}
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    entries = list_files(directory, files)
    manifest = Manifest(
        name=name,
        version=version,
        variants=(variant,),
        files=tuple(sorted((*entries, write_chunk_index(directory, entries)), key=lambda entry: entry.path)),
        golden=GOLDEN_PATH,
        provenance=Provenance(
            source=Source(file=f"{name}.onnx", format="onnx", size_bytes=len(model), sha256=sha256_of(model)),
            calibration_sha256=sha256_of(b""),
            converter="tests",
        ),
    )
    (directory / MANIFEST_PATH).write_text(manifest.to_text(), encoding="utf-8")
    data = (directory / MANIFEST_PATH).read_bytes()
    return BundleReference(name=name, version=version, manifest_sha256=sha256_of(data), manifest_size_bytes=len(data))


def add_rival(bundle: ModelBundle, model: bytes, *, told: float, unknown: str | None = None) -> ModelBundle:
    """Put a second variant, `rival`, under the first one of a bundle; it must answer alike.

    The rival is told to be twice as fast as float, the first variant to be `told` times as fast; of that one the
    converter's machine does not know how fast it is on machines called `unknown`.
    """
    (bundle.directory / RIVAL_PATH).parent.mkdir()
    (bundle.directory / RIVAL_PATH).write_bytes(model)
    manifest = Manifest.model_validate_json((bundle.directory / MANIFEST_PATH).read_bytes())
    (first,) = manifest.variants
    fast = first.latency.model_copy(update={"speedup": 2.0})
    latency = first.latency.model_copy(update={"speedup": told, "unknown_on": (unknown,) if unknown else ()})
    rival = first.model_copy(update={"id": "rival", "model": RIVAL_PATH, "files": (RIVAL_PATH,), "latency": fast})
    entries = list_files(bundle.directory, [first.model, RIVAL_PATH, GOLDEN_PATH])
    index = write_chunk_index(bundle.directory, entries)
    changes = {
        "variants": (first.model_copy(update={"latency": latency}), rival),
        "files": tuple(sorted((*entries, index), key=lambda entry: entry.path)),
    }
    (bundle.directory / MANIFEST_PATH).write_text(manifest.model_copy(update=changes).to_text(), encoding="utf-8")
    return bundle


def _body(width: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5)


def _golden(
    weights: Array, bias: Array, repeat: int, body: Array | None, random: np.random.Generator
) -> list[GoldenSample]:
    samples = []
    for _ in range(8):
        x = random.standard_normal((1, len(weights)), dtype=np.float32)
        y = x if body is None else x @ body
        for _ in range(repeat):
            y = y @ weights + bias
        samples.append(GoldenSample((x,), (y,)))
    return samples


def _variant(width: int, outputs: int, memory_bytes: int | None, runtime: str, form: str) -> Variant:
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, width))
    y = TensorSpec(name="y", datatype="FP32", shape=(-1, outputs))
    return _variant_of((x,), (y,), memory_bytes, runtime, form)


def _variant_of(
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    memory_bytes: int | None,
    runtime: str = "onnxruntime",
    form: str = "onnx",
) -> Variant:
    return Variant(
        id="fp32",
        format=form,
        precision="fp32",
        model=MODEL_PATH,
        files=(MODEL_PATH,),
        needs=RuntimeNeeds(
            runtime=runtime, min_version="1.16" if runtime == "onnxruntime" else None, memory_bytes=memory_bytes
        ),
        inputs=inputs,
        outputs=outputs,
        quality=Quality(metric="top1-agreement", value=1.0, samples=8),
        latency=Latency(median_us=10, speedup=1.0, machine="tests", runtime=f"opset {OPSET}", threads=1),
        # The same arithmetic in the same precision: only the order of additions differs.
        tolerances=tuple(Tolerance(output=each.name, min_sqnr_db=80.0, min_top1_agreement=1.0) for each in outputs),
    )
