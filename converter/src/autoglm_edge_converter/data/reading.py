"""From a path to the samples of a conversion: the kind is found, the parts are drawn, what is in use is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoglm_edge_converter.data import arrays, images, sounds, table
from autoglm_edge_converter.data.classes import read_class_names
from autoglm_edge_converter.data.dataset import Dataset, batched
from autoglm_edge_converter.data.fit import check_finite
from autoglm_edge_converter.data.folder import Files, find_files
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.produced import produced
from autoglm_edge_converter.data.steps import read_preprocess_file
from autoglm_edge_converter.errors import BadOption, NoSamples, SampleMismatch
from autoglm_edge_converter.split import Split, notes_on, split
from autoglm_edge_converter.tensors import Array, Feed, Port
from autoglm_edge_converter.usercode import is_reference
from autoglm_edge_protocol.preprocessing import Preprocessing

KINDS = ".npz, .npy, .csv, .wav, an image, a folder of arrays, images or sounds, or module.py:function"


@dataclass(frozen=True)
class Data:
    """The samples in use. `parts` are indices into them."""

    feeds: tuple[Feed, ...]
    names: tuple[str, ...]
    """Of each sample, for people."""
    labels: tuple[Array, ...] | None
    parts: Split
    digest: str
    """SHA-256 of all the data, what was not used included."""
    preprocessing: Preprocessing | None
    notes: tuple[str, ...]
    found: int
    """How many samples there were in all."""
    source: str
    """The name of the file, folder or function, without the folders above it."""
    class_names: tuple[str, ...] = ()
    """By number, where the data names its classes and no file does."""


def read_data(
    path: Path,
    inputs: Sequence[Port],
    seed: int,
    options: DataOptions = DataOptions(),  # noqa: B008
    classes: Path | None = None,
) -> Data:
    """Read, split and load. `classes` is the file with a class name a line, by which named labels are numbered.

    Raises BadSamples, BadOption, UnknownShape, UserCodeFailed, OSError.
    """
    dataset = open_data(path, inputs, options, None if classes is None else read_class_names(classes))
    if not len(dataset):
        raise NoSamples(f"{path} holds no samples: give {KINDS}")
    parts = split(len(dataset), seed, _sample_bytes(dataset), classes=_classes(dataset.labels))
    used = parts.used
    feeds = tuple(_checked(dataset, index) for index in used)
    place = {index: position for position, index in enumerate(used)}
    return Data(
        feeds=feeds,
        names=tuple(dataset.names[index] for index in used),
        labels=None if dataset.labels is None else tuple(dataset.labels[index] for index in used),
        parts=parts.moved(place),
        digest=dataset.digest(),
        preprocessing=dataset.preprocessing,
        notes=(*dataset.notes, *notes_on(parts, len(dataset))),
        found=len(dataset),
        source=path.name,
        class_names=dataset.class_names,
    )


def open_data(
    path: Path, inputs: Sequence[Port], options: DataOptions, class_names: Sequence[str] | None = None
) -> Dataset:
    """Return the samples at a path without loading them all. Raises as `read_data`."""
    if is_reference(str(path)):
        _refuse_steps(options, "a Python function")
        return produced(str(path), inputs)
    if path.is_dir():
        return _folder(path, inputs, options, class_names)
    if not path.is_file():
        raise NoSamples(f"{path} does not exist: give {KINDS}")
    suffix = path.suffix.lower()
    if suffix in table.SUFFIXES:
        _refuse_steps(options, "a table")
        return batched(table.table(path, inputs, options, class_names), inputs[0])
    if suffix in (*images.SUFFIXES, *sounds.SUFFIXES):
        return _media(Files(path, (path,)), suffix in images.SUFFIXES, inputs, options, class_names)
    _refuse_steps(options, "arrays")
    return arrays.one_file(path, inputs, class_names)


def _folder(path: Path, inputs: Sequence[Port], options: DataOptions, class_names: Sequence[str] | None) -> Dataset:
    groups = (("arrays", arrays.SUFFIXES), ("images", images.SUFFIXES), ("sounds", sounds.SUFFIXES))
    found = {kind: files for kind, suffixes in groups if (files := find_files(path, suffixes)).paths}
    if not found:
        raise NoSamples(f"{path} holds no samples: give {KINDS}")
    if len(found) > 1:
        raise NoSamples(f"{path} holds {' and '.join(found)}: keep one kind in a folder")
    kind, files = next(iter(found.items()))
    if kind == "arrays":
        _refuse_steps(options, "arrays")
        return arrays.folder(files, inputs, class_names)
    return _media(files, kind == "images", inputs, options, class_names)


def _media(
    files: Files, are_images: bool, inputs: Sequence[Port], options: DataOptions, class_names: Sequence[str] | None
) -> Dataset:
    port = _port(inputs, options)
    make: Callable[[Files, Port, DataOptions, Sequence[str] | None], Dataset]
    make = images.images if are_images else sounds.sounds
    return batched(make(files, port, options, class_names), port)


def _port(inputs: Sequence[Port], options: DataOptions) -> Port:
    asked = read_preprocess_file(options.preprocess).get("input") if options.preprocess else None
    names = ", ".join(port.name for port in inputs)
    if asked is not None and asked not in [port.name for port in inputs]:
        raise BadOption(f"{options.preprocess}: input is {asked!r}, but the model's inputs are: {names}")
    if len(inputs) > 1:
        raise SampleMismatch(
            f"the model has {len(inputs)} inputs ({names}), files of one kind give only one: give .npz, or a Python "
            "function as module.py:function"
        )
    return inputs[0]


def _refuse_steps(options: DataOptions, kind: str) -> None:
    if options.preprocesses:
        raise BadOption(f"pre-processing is for images and sound; {kind} must be given as the model takes them")


def _sample_bytes(dataset: Dataset) -> int:
    """Return the size of a large sample: the largest of a few, spread over the data."""
    count = min(len(dataset), 8)
    chosen = {index * len(dataset) // count for index in range(count)}
    return max(sum(array.nbytes for array in dataset.load(index).values()) for index in sorted(chosen))


def _checked(dataset: Dataset, index: int) -> Feed:
    feed = dataset.load(index)
    check_finite(feed, dataset.names[index])
    return feed


def _classes(labels: tuple[Array, ...] | None) -> tuple[int, ...] | None:
    """Return one class for each sample to stratify by; None where the labels are no single classes."""
    if labels is None or any(label.size != 1 or not np.issubdtype(label.dtype, np.integer) for label in labels):
        return None
    return tuple(int(label.ravel()[0]) for label in labels)


__all__ = ["Data", "open_data", "read_data"]
