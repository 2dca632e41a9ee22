"""The demonstration's model and its input: a file-type classifier, and files of this machine whose type is known.

The model is the one that the `magika` package ships (Google, Apache-2.0): int32 [N, 2048] -> 214 classes, the first and
the last 1024 bytes of a file. Its features are those of magika's extraction, version 2: both ends of the first and last
4096 bytes with white space stripped, padded with 256.
"""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

END_BYTES = 1024
BLOCK_BYTES = 4096
PADDING = 256
PER_TYPE = 40
SEARCH_S = 8.0

LABELS = {
    ".c": "c", ".css": "css", ".csv": "csv", ".gif": "gif", ".gz": "gzip", ".html": "html", ".ini": "ini",
    ".ipynb": "ipynb", ".java": "java", ".jpg": "jpeg", ".js": "javascript", ".json": "json", ".md": "markdown",
    ".npy": "npy", ".npz": "npz", ".pdf": "pdf", ".pem": "pem", ".png": "png", ".po": "po",
    ".proto": "proto", ".py": "python", ".pyc": "pythonbytecode", ".rst": "rst", ".rs": "rust", ".sh": "shell",
    ".so": "elf", ".sql": "sql", ".svg": "svg", ".tar": "tar", ".tcl": "tcl", ".toml": "toml", ".ts": "typescript",
    ".ttf": "ttf", ".wav": "wav", ".whl": "zip", ".xml": "xml", ".yaml": "yaml", ".yml": "yaml", ".zip": "zip",
}  # fmt: skip
"""File name suffixes that leave no doubt, and the model's label for them. Not `.pl`: Perl ships tables under it."""


@dataclass(frozen=True)
class LabelledFile:
    """A file of this machine."""

    path: Path
    label: str
    features: npt.NDArray[np.int32]
    """int32 [2048]."""


@dataclass(frozen=True)
class Classifier:
    """The model and the names of its 214 classes."""

    model: Path
    labels: tuple[str, ...]


def find_classifier() -> Classifier:
    """Return the model inside the installed magika package. Raises ModuleNotFoundError, FileNotFoundError."""
    folder = files("magika") / "models" / "standard_v3_3"
    with as_file(folder) as path:
        settings = json.loads((path / "config.min.json").read_text(encoding="utf-8"))
        return Classifier(path / "model.onnx", tuple(settings["target_labels_space"]))


def extract_features(path: Path) -> npt.NDArray[np.int32] | None:
    """Return the model's input for a file, int32 [2048]; None when it is too small to tell. Raises OSError."""
    with path.open("rb") as file:
        first = file.read(BLOCK_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - BLOCK_BYTES))
        last = file.read(BLOCK_BYTES)
    head, tail = first.lstrip()[:END_BYTES], last.rstrip()[-END_BYTES:]
    if len(head) < 8 or len(tail) < 8:
        return None
    features = np.full(2 * END_BYTES, PADDING, dtype=np.int32)
    features[: len(head)] = np.frombuffer(head, np.uint8)
    features[2 * END_BYTES - len(tail) :] = np.frombuffer(tail, np.uint8)
    return features


def gather_files(limit: int) -> list[LabelledFile]:
    """Return up to `limit` files of this machine, of as many types as it has, in an order without pattern.

    Only program and system folders are looked at, never anybody's home; not those of tests, whose files are broken on
    purpose.
    """
    found: dict[str, list[Path]] = {}
    deadline = time.monotonic() + SEARCH_S
    for path in _walk():
        shelf = found.setdefault(path.suffix, [])
        if len(shelf) < 4 * PER_TYPE:
            shelf.append(path)
        if time.monotonic() > deadline:
            break
    chosen = [path for shelf in found.values() for path in sorted(shelf, key=_order)[:PER_TYPE]]
    labelled = (_label(path) for path in sorted(chosen, key=_order))
    return [file for file in labelled if file is not None][:limit]


def _walk() -> Iterator[Path]:
    places = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/usr/share", "/usr/lib", "/usr/include"]
    for place in dict.fromkeys(places):
        for folder, below, names in os.walk(place, onerror=None):
            below[:] = sorted(name for name in below if "test" not in name)
            for name in sorted(names):
                if Path(name).suffix in LABELS:
                    yield Path(folder) / name


def _order(path: Path) -> bytes:
    return hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).digest()


def _label(path: Path) -> LabelledFile | None:
    try:
        features = extract_features(path) if path.is_file() else None
    except OSError:
        return None
    return None if features is None else LabelledFile(path, LABELS[path.suffix], features)
