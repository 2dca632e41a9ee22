"""Samples that a user's function gives: `module.py:function`, called without arguments, returns an iterable.

Each item is an array for a model with one input, a dictionary of arrays by input name, or a pair (input, label) of
either and what is true of it. Arrays have the model's dtype; the batch axis may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoglm_edge_converter.data.dataset import Dataset
from autoglm_edge_converter.data.fit import check, match
from autoglm_edge_converter.errors import NoSamples, UserCodeFailed
from autoglm_edge_converter.limits import DATA_LIMITS
from autoglm_edge_converter.tensors import Array, Feed, Port
from autoglm_edge_converter.usercode import blamed_on, file_of, load_function
from autoglm_edge_protocol.digests import sha256_of


def produced(reference: str, inputs: Sequence[Port]) -> Dataset:
    """Call the function and take its samples, up to the limits. Raises UserCodeFailed, SampleMismatch, NoSamples."""
    path = file_of(reference)
    feeds: list[Feed] = []
    labels: list[Array | None] = []
    notes: tuple[str, ...] = ()
    size_bytes = 0
    for item in _items(reference, path):
        feed, label = _sample(item, inputs, f"{path.name}, sample {len(feeds)}")
        size_bytes += sum(array.nbytes for array in feed.values())
        if len(feeds) == DATA_LIMITS.produced_samples or size_bytes > DATA_LIMITS.produced_bytes:
            notes = (f"only the first {len(feeds)} samples of {path.name} are used",)
            break
        feeds.append(feed)
        labels.append(label)
    if not feeds:
        raise NoSamples(f"{reference.rpartition(':')[2]} in {path.name} gives no samples: yield arrays or dictionaries")
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise UserCodeFailed(f"{path.name} gives a label with {len(known)} of {len(labels)} samples: give all or none")
    names = tuple(f"sample {index}" for index in range(len(feeds)))
    return Dataset(names, feeds.__getitem__, lambda: _digest(feeds, known), tuple(known) or None, notes=notes)


def _items(reference: str, path: Path) -> Iterator[Any]:
    function = load_function(reference)
    with blamed_on(path):
        found = function()
        iterator = iter(found)
    while True:
        with blamed_on(path):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _sample(item: Any, inputs: Sequence[Port], where: str) -> tuple[Feed, Array | None]:
    label = None
    if isinstance(item, tuple):
        if len(item) != 2:
            raise UserCodeFailed(f"{where} is a tuple of {len(item)}: give an array, a dictionary, or (input, label)")
        item, label = item[0], np.asarray(item[1])
        label = label[None] if label.ndim == 0 else label
        if label.dtype == object:
            raise UserCodeFailed(f"{where}: the label is no number and no array of numbers")
    arrays = item if isinstance(item, dict) else {inputs[0].name: item}
    feed = match({str(name): np.asarray(array) for name, array in arrays.items()}, inputs, where)
    fitted = {port.name: _with_batch(feed[port.name], port) for port in inputs}
    for port in inputs:
        check(fitted[port.name], port, where)
    return fitted, label


def _with_batch(array: Array, port: Port) -> Array:
    return array[None] if port.shape is not None and array.ndim == len(port.shape) - 1 else array


def _digest(feeds: Sequence[Feed], labels: Sequence[Array]) -> str:
    parts = [(f"{name} {array.dtype.str} {array.shape}\n", array) for feed in feeds for name, array in feed.items()]
    parts += [(f"label {array.dtype.str} {array.shape}\n", array) for array in labels]
    lines = [head + sha256_of(np.ascontiguousarray(array).tobytes()) for head, array in parts]
    return sha256_of("\n".join(lines).encode())
