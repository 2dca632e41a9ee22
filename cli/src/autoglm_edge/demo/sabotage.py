"""A bundle that is well-formed and wrong: weights damaged on purpose, every digest right, the golden set untouched.

It is what a mix-up in a build or a bit error before signing makes: no checksum finds it, only running it does.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx import numpy_helper

from autoglm_edge_protocol.bundle import list_files, read_manifest, write_chunk_index
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH, Manifest


def damaged_copy(bundle: Path, directory: Path, version: str) -> Path:
    """Write a copy of a bundle directory in which the largest weights of each model are turned upside down.

    Returns the new bundle directory. Raises OSError.
    """
    target = directory / f"{read_manifest(bundle).name}-{version}"
    shutil.copytree(bundle, target)
    manifest = read_manifest(target)
    for variant in manifest.variants:
        _damage(target / variant.model)
    paths = [entry.path for entry in manifest.files if entry.path != CHUNK_INDEX_PATH]
    entries = list_files(target, paths)
    files = tuple(sorted((*entries, write_chunk_index(target, entries)), key=lambda entry: entry.path))
    changed: Manifest = manifest.model_copy(update={"version": version, "files": files})
    (target / MANIFEST_PATH).write_text(changed.to_text(), encoding="utf-8")
    return target


def _damage(path: Path) -> None:
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(array[::-1].copy(), weights.name))
    onnx.save(model, path)
