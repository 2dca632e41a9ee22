"""What every kind of data gives: samples that can be loaded one by one, with their names and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from autoglm_edge_converter.errors import SampleMismatch
from autoglm_edge_converter.tensors import Array, Feed, Port
from autoglm_edge_protocol.preprocessing import Preprocessing


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order."""

    names: tuple[str, ...]
    """Of each sample, for people: a file, a row, a number."""
    load: Callable[[int], Feed]
    """Loads a sample. Raises BadSamples."""
    digest: Callable[[], str]
    """Gives the SHA-256 of everything the samples and labels come from. Raises OSError."""
    labels: tuple[Array, ...] | None = None
    """One array for each sample; class numbers are int64 [rows]."""
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    """By number, where the data names its classes and no file does."""

    def __len__(self) -> int:
        return len(self.names)


def batched(dataset: Dataset, port: Port) -> Dataset:
    """Join samples of one row to the fixed batch that a model takes; what does not fill a batch is left out.

    Raises SampleMismatch when there is not even one batch.
    """
    size = port.shape[0] if port.shape else None
    if size is None or size == 1:
        return dataset
    count = len(dataset) // size
    if count == 0:
        raise SampleMismatch(f"{len(dataset)} samples do not fill one batch of {size}, which the model takes")

    def load(index: int) -> Feed:
        rows = [dataset.load(row) for row in range(index * size, (index + 1) * size)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    labels = dataset.labels
    joined = labels and tuple(np.concatenate(labels[i * size : (i + 1) * size]) for i in range(count))
    return replace(dataset, names=dataset.names[: count * size : size], load=load, labels=joined)
