"""Small valid bundles, made with the protocol's own models; their "models" are random bytes that no runtime reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_protocol.bundle import list_files
from autoglm_edge_protocol.chunk_index import write_chunk_index
from autoglm_edge_protocol.digests import sha256_of
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
    TensorSpec,
    Variant,
)


def make_bundle(
    directory: Path,
    name: str = "tiny",
    version: str = "1.0.0",
    variants: Sequence[str] = ("fp32",),
    payload_bytes: int = 200_000,
    seed: int = 0,
) -> Path:
    """Write a bundle directory whose variants share out `payload_bytes`; equal arguments give equal bytes."""
    source = random.Random(f"{name} {version} {seed}")
    contents = {f"variants/{each}/model.onnx": source.randbytes(payload_bytes // len(variants)) for each in variants}
    contents[GOLDEN_PATH] = source.randbytes(1000)
    contents["labels.txt"] = b"zero\none\n"
    for path, data in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    files = list_files(directory, contents)
    manifest = Manifest(
        name=name,
        version=version,
        description="random bytes",
        variants=tuple(_variant(each) for each in variants),
        files=tuple(sorted((*files, write_chunk_index(directory, files)), key=lambda entry: entry.path)),
        golden=GOLDEN_PATH,
        labels="labels.txt",
        provenance=Provenance(
            source=Source(file="model.onnx", format="onnx", size_bytes=1, sha256=sha256_of(b"x")),
            calibration_sha256=sha256_of(b"y"),
            converter="0.1.0",
        ),
    )
    Disk().commit(directory / MANIFEST_PATH, manifest.to_text().encode())
    return directory


def _variant(variant_id: str) -> Variant:
    path = f"variants/{variant_id}/model.onnx"
    return Variant(
        id=variant_id,
        format="onnx",
        precision=variant_id,
        model=path,
        files=(path,),
        needs=RuntimeNeeds(runtime="onnxruntime"),
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
        quality=Quality(metric="sqnr", value=60.0, samples=8),
        latency=Latency(median_us=10.0, speedup=1.0, machine="none", runtime="none", threads=1),
        tolerances=(),
    )
