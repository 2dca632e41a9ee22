"""Channels that must go together: every channel of every tensor is a label, and tied labels form a class.

A class is what can be taken out of a network as one; a class that is frozen stays, and says why. Pure bookkeeping:
which operators tie or freeze is said in `layers`, `carriers` and `movers`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
"""One label per channel, int64 [channels]."""


@dataclass(frozen=True)
class Track:
    """Where a tensor's channels are: the axis, of so many, along which the labels lie."""

    axis: int
    rank: int
    labels: Labels

    @property
    def from_end(self) -> int:
        """The axis counted from the last, which is -1: what broadcasting aligns."""
        return self.axis - self.rank


class Channels:
    """All labels of one graph: a union-find with reasons. Each label remembers the layer that makes its channel."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._layer: list[str] = []
        self._frozen: dict[int, str] = {}

    def fresh(self, count: int, layer: str) -> Labels:
        """Return labels for the channels that a layer makes."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        self._layer.extend([layer] * count)
        return np.arange(start, start + count, dtype=np.int64)

    def root(self, label: int) -> int:
        """Return the smallest label of a label's class."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def tie(self, first: Labels, second: Labels) -> None:
        """Make channel i of the first and channel i of the second one class, for every i."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.root(one), self.root(other)))
            self._parent[high] = low
            if high in self._frozen:
                self._frozen.setdefault(low, self._frozen.pop(high))

    def freeze(self, labels: Labels, reason: str) -> None:
        """Keep these channels; the first reason given for a class stands."""
        for label in labels.tolist():
            self._frozen.setdefault(self.root(label), reason)

    def reason(self, label: int) -> str | None:
        """Return why a channel must stay, None where it need not."""
        return self._frozen.get(self.root(label))

    def layer(self, label: int) -> str:
        """Return the layer that makes a channel."""
        return self._layer[label]

    def roots(self) -> Labels:
        """Return the class of every label, int64 [labels]."""
        return np.array([self.root(label) for label in range(len(self._parent))], dtype=np.int64)
