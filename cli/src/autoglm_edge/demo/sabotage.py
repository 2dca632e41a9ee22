"""Bundles that are well-formed and wrong: weights damaged on purpose, every digest right.

With the golden set untouched it is what a mix-up in a build or a bit error before signing makes: no checksum finds it,
only running it does. With a golden set of its own it is what a training that went wrong makes: that finds only a
comparison with the model before, on inputs that nobody chose.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import onnxruntime
from onnx import numpy_helper

from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import list_files, read_manifest
from autoglm_edge_protocol.chunk_index import write_chunk_index
from autoglm_edge_protocol.golden import GoldenSample
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH, Manifest


def damaged_copy(bundle: Path, directory: Path, version: str) -> Path:
    """Write a copy of a bundle directory in which the largest weights of each model are turned upside down.

    Returns the new bundle directory. Raises OSError.
    """
    target, manifest = _damaged(bundle, directory, version)
    _write(target, manifest)
    return target


def mistaken_copy(bundle: Path, directory: Path, version: str) -> Path:
    """Write a copy of a bundle directory whose best variant is damaged, and whose golden set is that variant's own.

    Returns the new bundle directory. Raises OSError, MalformedDocument.
    """
    target, manifest = _damaged(bundle, directory, version)
    best = manifest.variants[0]
    session = onnxruntime.InferenceSession(str(target / best.model), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in best.inputs]
    answered = [
        GoldenSample(sample.inputs, tuple(session.run(None, dict(zip(names, sample.inputs, strict=True)))))
        for sample in golden.load(target / manifest.golden)
    ]
    (target / manifest.golden).write_bytes(golden.save(answered))
    _write(target, manifest.model_copy(update={"variants": (best,)}))
    return target


def _damaged(bundle: Path, directory: Path, version: str) -> tuple[Path, Manifest]:
    target = directory / f"{read_manifest(bundle).name}-{version}"
    shutil.copytree(bundle, target)
    manifest = read_manifest(target)
    for variant in manifest.variants:
        _damage(target / variant.model)
    return target, manifest.model_copy(update={"version": version})


def _write(target: Path, manifest: Manifest) -> None:
    paths = [entry.path for entry in manifest.files if entry.path != CHUNK_INDEX_PATH]
    entries = list_files(target, paths)
    files = tuple(sorted((*entries, write_chunk_index(target, entries)), key=lambda entry: entry.path))
    text = manifest.model_copy(update={"files": files}).to_text()
    (target / MANIFEST_PATH).write_text(text, encoding="utf-8")


def _damage(path: Path) -> None:
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(array[::-1].copy(), weights.name))
    onnx.save(model, path)
