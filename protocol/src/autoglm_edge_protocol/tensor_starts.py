"""Where the tensors of a bundle's model files begin, so that chunks can begin there too.

A file that cannot be parsed has no tensor starts: it is cut by its content alone.
"""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Iterable
from pathlib import Path

from autoglm_edge_protocol import onnx_tensors, tflite_tensors
from autoglm_edge_protocol.tensor_places import TensorPlace

LEAST_BYTES = 16 * 1024
"""A smaller tensor begins no chunk: that would cost more in the index than it saves."""


def tensor_starts(directory: Path, paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return, for each of the files in which large tensors were found, the offsets in bytes. Raises OSError.

    A model may name files beside it that hold its tensors; only those among `paths` count.
    """
    known = set(paths)
    found: dict[str, set[int]] = {}
    for path in sorted(known):
        for place in _tensors(directory / path):
            file = (
                path if place.file is None else posixpath.normpath(posixpath.join(posixpath.dirname(path), place.file))
            )
            if file in known and place.size_bytes >= LEAST_BYTES:
                found.setdefault(file, set()).add(place.offset)
    return {path: tuple(sorted(starts)) for path, starts in found.items()}


def _tensors(path: Path) -> list[TensorPlace]:
    find = {".onnx": onnx_tensors.find, ".tflite": tflite_tensors.find}.get(path.suffix)
    if find is None or path.stat().st_size == 0:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return find(data)
        except ValueError:
            return []
