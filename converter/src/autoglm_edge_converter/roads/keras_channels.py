"""Channels of a Keras model: which of them are the same channel, seen from several layers, and which must stay.

Each tensor's last axis carries labels, int64 [C]; labels that are joined are one channel. Layouts other than channels
last are not followed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]

Axes = tuple[Labels | None, ...]
"""The labels along each axis of an array of weights; None for an axis that stays whole."""


class Channels:
    """Labels that were given out. Channels of the model's ends, and those in layers not known here, are frozen."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: list[int] = []

    def new(self, count: int) -> Labels:
        """Return labels of channels that nothing else has."""
        start = len(self._parent)
        self._parent += range(start, start + count)
        return np.arange(start, start + count, dtype=np.int64)

    def join(self, one: Labels, other: Labels) -> None:
        """Say that these are the same channels. Of different counts, both are frozen."""
        if len(one) != len(other):
            self.freeze(one)
            self.freeze(other)
            return
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self._parent[self._root(b)] = self._root(a)

    def freeze(self, labels: Labels) -> None:
        """Say that these must stay."""
        self._frozen += labels.tolist()

    def roots(self) -> Labels:
        """Return for each label the label that stands for its channel, int64 [labels]."""
        return np.array([self._root(label) for label in range(len(self._parent))], np.int64)

    def frozen(self) -> npt.NDArray[np.bool_]:
        """Return which labels stand for a channel that must stay, bool [labels]; asked for at `roots`."""
        found = np.zeros(len(self._parent), bool)
        found[[self._root(label) for label in self._frozen]] = True
        return found

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label


@dataclass
class Cut:
    """Where a layer's weights and configuration have channels."""

    layer: Any
    reads: Labels
    makes: Labels
    arrays: tuple[Axes, ...]
    """For each array of `layer.get_weights()`."""
    width: str | None = None
    """The entry of the configuration that counts `makes`; the last of its numbers where it is a shape."""
    positions: float = 0.0
    """How often the weights are used for one sample, over all calls."""


@dataclass
class Map:
    """The channels of a whole model, and the layers that can be cut, by name."""

    channels: Channels = field(default_factory=Channels)
    cuts: dict[str, Cut] = field(default_factory=dict)
    fixed: float = 0.0
    """The multiplications for one sample of layers that cannot be cut."""


def fits(cut: Cut) -> bool:
    """Tell whether a layer's weights have the shapes that its labels say."""
    weights = cut.layer.get_weights()
    return len(weights) == len(cut.arrays) and all(map(_fits, weights, cut.arrays))


def _fits(array: Any, axes: Axes) -> bool:
    sizes: Sequence[int] = array.shape
    return len(sizes) == len(axes) and all(
        labels is None or len(labels) == size for size, labels in zip(sizes, axes, strict=True)
    )
