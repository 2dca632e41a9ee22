"""The state of following channels through a graph, which the operators' functions read and write.

A function first proves that it understands its node and raises `Unproven` otherwise; only then does it record. What it
does not record is caught: a weight that is read more often than recorded is frozen (see `settle`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from autoglm_edge_converter.pruning.channels import Channels, Labels, Track
from autoglm_edge_converter.pruning.graph import GraphFacts, integers


class Unproven(Exception):
    """The channels cannot be followed through a node; `str` says why. Never leaves this package."""


@dataclass(frozen=True)
class Layer:
    """A node that multiplies channels by a constant weight. `node` is its first output's name, which is unique.

    `inputs` are the labels of the channels it reads (None: they cannot be pruned), `outputs` of those it makes.
    """

    node: str
    name: str
    operator: str
    weight: str
    weight_shape: tuple[int, ...]
    inputs: Labels | None
    outputs: Labels
    groups: int
    made_axis: int
    """Along which axis of the weight the channels made lie: 0, and those read along 1; or the other way round."""


@dataclass(frozen=True)
class Cut:
    """A constant has one of these channels at each index of an axis."""

    tensor: str
    axis: int
    labels: Labels


@dataclass(frozen=True)
class Resize:
    """A node that has numbers of channels written into it, to be counted again: of what, and where.

    `kind` is `group` (the attribute of a depthwise convolution), `split` (sizes of parts) or `reshape` (axis `axis` of
    the target shape).
    """

    node: str
    kind: str
    parts: tuple[Labels, ...]
    axis: int = 0


class Tracer:
    """Follows channels node by node."""

    def __init__(self, facts: GraphFacts) -> None:
        self.facts = facts
        self.channels = Channels()
        self.layers: list[Layer] = []
        self.resizes: list[Resize] = []
        self._tracks: dict[str, Track] = {}
        self._cuts: dict[str, list[dict[int, Labels]]] = {}

    def track(self, name: str) -> Track | None:
        """Return where a tensor's channels are, None where none of them can be pruned."""
        return self._tracks.get(name)

    def follow(self, name: str, track: Track) -> None:
        """Say where the channels of a node's output are."""
        self._tracks[name] = track

    def freeze(self, name: str, reason: str) -> None:
        """Keep the channels of a tensor."""
        if name in self._tracks:
            self.channels.freeze(self._tracks[name].labels, reason)

    def rank(self, name: str) -> int:
        """Return how many axes a tensor has. Raises Unproven."""
        track = self.track(name)
        shape = self.facts.shape(name)
        if track is None and shape is None:
            raise Unproven(f"the rank of {name!r} is not known")
        return track.rank if track is not None else len(shape or ())

    def cut(self, tensor: str, axes: Mapping[int, Labels]) -> None:
        """Record that a node reads a constant, and which channels lie along which of its axes (none: no axis)."""
        self._cuts.setdefault(tensor, []).append(dict(axes))

    def listed(self, node: onnx.NodeProto, attribute: str, position: int) -> tuple[int, ...] | None:
        """Return a list of integers that older operator sets keep in an attribute and newer ones in an input.

        None where it is absent. Raises Unproven where it is computed.
        """
        if position < len(node.input) and node.input[position]:
            values = self.facts.constant(node.input[position])
            if values is None:
                raise Unproven(f"its {attribute} are computed")
            return tuple(int(value) for value in np.asarray(values).reshape(-1))
        return integers(node, attribute)

    def settle(self) -> tuple[Cut, ...]:
        """Reconcile constants that several nodes read, and return all cuts."""
        for tensor, uses in self._cuts.items():
            axes = set(uses[0])
            alike = all(set(use) == axes for use in uses) and len(uses) == self.facts.reads[tensor]
            for use in uses:
                for axis, labels in use.items():
                    if alike:
                        self.channels.tie(uses[0][axis], labels)
                    else:
                        self.channels.freeze(labels, f"weight {tensor!r} is also read by another node")
        return tuple(
            Cut(tensor, axis, labels) for tensor, uses in self._cuts.items() for axis, labels in uses[0].items()
        )
