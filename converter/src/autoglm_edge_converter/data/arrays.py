"""Arrays: one `.npz` or `.npy`, or a folder with one file per sample.

In a single file each array belongs to one input and has the samples along its first axis. In a folder each file is
one whole call of the model, batch axis included, so samples may differ in shape. Where a model has a single input,
any name serves. An array named `labels`, or `NAME_labels` beside an array NAME, holds what is true of the samples.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autoglm_edge_converter.data.classes import Numbered, number_classes
from autoglm_edge_converter.data.dataset import Dataset
from autoglm_edge_converter.data.fit import check, cut, match
from autoglm_edge_converter.data.folder import Files, labels_of
from autoglm_edge_converter.errors import NoSamples, SampleMismatch
from autoglm_edge_converter.limits import DATA_LIMITS
from autoglm_edge_converter.tensors import Array, Feed, Port
from autoglm_edge_protocol.digests import sha256_of_file

SUFFIXES = (".npz", ".npy")
LABELS = "labels"


def one_file(path: Path, inputs: Sequence[Port], class_names: Sequence[str] | None) -> Dataset:
    """Return the samples of one file. Raises NoSamples, SampleMismatch, UnknownShape."""
    arrays, labels = _without_labels(_read(path), inputs)
    chosen = match(arrays, inputs, str(path))
    columns = {port.name: cut(chosen[port.name], port, str(path)) for port in inputs}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise SampleMismatch(f"{path}: the inputs have different numbers of samples: {counts}")
    count = min(counts.values())
    return Dataset(
        names=tuple(f"sample {index}" for index in range(count)),
        load=lambda index: {name: column[index] for name, column in columns.items()},
        digest=lambda: sha256_of_file(path),
        labels=None if labels is None else _cut_labels(labels, count, class_names, str(path)),
    )


def folder(files: Files, inputs: Sequence[Port], class_names: Sequence[str] | None) -> Dataset:
    """Return a sample per file; an array named `labels` in them, folders or `labels.csv` give the labels."""

    def load(index: int) -> Feed:
        where = str(files.paths[index])
        arrays = match(_without_labels(_read(files.paths[index]), inputs)[0], inputs, where)
        for port in inputs:
            check(arrays[port.name], port, where)
        return arrays

    found = _folder_labels(files, inputs, class_names)
    labels, notes, names = (found.labels, found.notes, found.names) if found else (None, (), ())
    return Dataset(files.names, load, files.digest, labels, notes=notes, class_names=names)


def _folder_labels(files: Files, inputs: Sequence[Port], class_names: Sequence[str] | None) -> Numbered | None:
    numbered = labels_of(files, class_names)
    if numbered is not None:
        return numbered
    if not files.paths or files.paths[0].suffix == ".npy" or _without_labels(_read(files.paths[0]), inputs)[1] is None:
        return None
    found = [_without_labels(_read(path), inputs)[1] for path in files.paths]
    missing = next((path for path, label in zip(files.paths, found, strict=True) if label is None), None)
    if missing is not None:
        raise SampleMismatch(f"{missing} has no labels, other files have: give them in all or in none")
    return Numbered(tuple(label for label in found if label is not None))


def _read(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        try:
            if file.read(2) == b"PK":
                _check_size(path)
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {path.stem: loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except NoSamples:
            raise
        except Exception as error:
            # A dozen types come out of the zip reader, zlib and the header parser; all mean the same to a user.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise NoSamples(f"{path} cannot be read as .npz or .npy ({reason}): write it with numpy.savez") from None


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size_bytes = sum(entry.file_size for entry in archive.infolist())
    if size_bytes > DATA_LIMITS.archive_bytes:
        raise NoSamples(f"{path} unpacks to {size_bytes} bytes, at most {DATA_LIMITS.archive_bytes} are read")


def _without_labels(arrays: Mapping[str, Array], inputs: Sequence[Port]) -> tuple[dict[str, Array], Array | None]:
    """Take the labels out, unless an input of the model has that name."""
    names = {port.name for port in inputs}
    found = [name for name in arrays if name not in names and (name == LABELS or _stem(name) in arrays)]
    rest = {name: array for name, array in arrays.items() if name not in found}
    wanted = next((name for name in found if name == LABELS or _stem(name) in names), found[0] if found else None)
    return rest, None if wanted is None else arrays[wanted]


def _stem(name: str) -> str | None:
    return name.removesuffix(f"_{LABELS}") if name.endswith(f"_{LABELS}") else None


def _cut_labels(labels: Array, count: int, class_names: Sequence[str] | None, where: str) -> tuple[Array, ...]:
    if labels.ndim == 0 or count == 0 or len(labels) % count:
        raise SampleMismatch(f"{where}: {labels.size} labels for {count} samples: give one for each")
    if labels.dtype.kind == "U":
        labels = np.concatenate(number_classes(labels.ravel().tolist(), class_names).labels).reshape(labels.shape)
    rows = len(labels) // count
    return tuple(labels[start : start + rows] for start in range(0, len(labels), rows))
