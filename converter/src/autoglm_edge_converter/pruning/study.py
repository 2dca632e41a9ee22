"""What is learnt of a model once, before anything is pruned: its channels, what its layers read, what they cost.

Everything later (orders of removal, least squares, plans) works on this.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.pruning.cut import kept
from autoglm_edge_converter.pruning.graph import GraphFacts, prepared
from autoglm_edge_converter.pruning.groups import ChannelMap, Group, map_channels
from autoglm_edge_converter.pruning.importance import Reading, order
from autoglm_edge_converter.pruning.moments import Moments, Reader, Run, collect, run_here
from autoglm_edge_converter.pruning.patches import has_intercept, to_matrix, window_of
from autoglm_edge_converter.pruning.tracer import Layer
from autoglm_edge_converter.tensors import Array, Feed

MULTIPLE = 8
"""Widths that vector kernels like, on 8-bit numbers as well as in float."""

MOST_SAMPLES = 128
READ_WORK, MADE_WORK = 8.0, 64.0
"""What gathering a number into a patch and rounding a result to 8 bits cost, in multiplications: fitted to
onnxruntime's times of 3x3 and 1x1 convolutions on a CPU with VNNI. Without them wide early layers look cheap."""

LEAST_KEPT = 0.25
"""No group is made narrower than this part of its width."""


@dataclass(frozen=True)
class Study:
    """A model made ready for pruning. `proto` must not be changed."""

    proto: onnx.ModelProto
    channels: ChannelMap
    readers: tuple[Reader, ...]
    moments: Mapping[str, Moments]
    positions: Mapping[str, int]
    """How often a layer's weight is used for the first sample, by its node."""
    orders: Mapping[str, tuple[int, ...]]
    """The classes of each group that can go, the least important first, by the group's name."""
    feeds: tuple[Feed, ...]
    multiple: int
    run: Run

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group, those that cannot be pruned included."""
        return self.channels.groups

    def widths(self, group: Group) -> tuple[int, ...]:
        """Return the widths that a group can be given, the widest first and without its own."""
        least = group.width - len(self.orders.get(group.name, ()))
        return tuple(width for width in range(group.width - 1, least - 1, -1) if width % self.multiple == 0)

    def removed(self, widths: Mapping[str, int]) -> frozenset[int]:
        """Return the classes to take out for the widths given. Groups that are not named stay as they are."""
        gone: set[int] = set()
        for group in self.groups:
            count = group.width - widths.get(group.name, group.width)
            gone.update(self.orders.get(group.name, ())[:count])
        return frozenset(gone)

    def multiplications(self, removed: Collection[int] = ()) -> float:
        """Return how many multiplications the layers do for the first sample."""
        return sum(self.positions[layer.node] * _size(layer, removed) for layer in self.channels.layers)

    def work(self, removed: Collection[int] = ()) -> float:
        """Return the time of the layers on 8-bit numbers in units of one multiplication, moving numbers included."""
        return sum(self.positions[layer.node] * _work(layer, removed) for layer in self.channels.layers)


def _work(layer: Layer, removed: Collection[int]) -> float:
    made = layer.weight_shape[layer.made_axis] * float(kept(layer.outputs, removed).mean())
    size = _size(layer, removed)
    return size + READ_WORK * size / max(made, 1.0) + MADE_WORK * made


def _size(layer: Layer, removed: Collection[int]) -> float:
    size = math.prod(layer.weight_shape) * float(kept(layer.outputs, removed).mean())
    return size if layer.inputs is None else size * float(kept(layer.inputs, removed).mean())


def study(
    proto: onnx.ModelProto, feeds: Sequence[Feed], seed: int = 0, multiple: int = MULTIPLE, run: Run = run_here
) -> Study:
    """Follow the channels of a float32 model and run it once over the calibration samples, spread over all of them.

    Raises ValueError without samples. Errors of the runtime pass through.
    """
    if not feeds:
        raise ValueError("pruning needs calibration samples")
    ready = prepared(proto)
    channels = map_channels(ready)
    chosen = tuple(feeds[index] for index in np.linspace(0, len(feeds) - 1, min(len(feeds), MOST_SAMPLES)).astype(int))
    readers = _readers(ready, channels, seed)
    moments = collect(ready, readers, chosen, run)
    orders = {group.name: _order(ready, group, readers, moments, multiple) for group in channels.groups}
    positions = _positions(ready, channels.layers, chosen[0], run)
    return Study(ready, channels, readers, moments, positions, orders, chosen, multiple, run)


def _readers(proto: onnx.ModelProto, channels: ChannelMap, seed: int) -> tuple[Reader, ...]:
    free = {label for group in channels.groups for label in group.free}
    reads = GraphFacts(proto).reads
    nodes = {node.output[0]: node for node in proto.graph.node if node.output}
    found = []
    for number, layer in enumerate(channels.layers):
        if layer.inputs is None or free.isdisjoint(layer.inputs.tolist()):
            continue
        node = nodes[layer.node]
        window = window_of(node, layer)
        own = len(node.input) > 2 and reads[node.input[2]] == 1 and _is_row(proto, node.input[2], len(layer.outputs))
        bias = node.input[2] if own and has_intercept(node, layer) else None
        fits = reads[layer.weight] == 1
        found.append(Reader(layer, node.input[0], window, bias, fits, seed + number))
    return tuple(found)


def _is_row(proto: onnx.ModelProto, name: str, width: int) -> bool:
    return any(tensor.name == name and tuple(tensor.dims) == (width,) for tensor in proto.graph.initializer)


def _order(
    proto: onnx.ModelProto, group: Group, readers: Iterable[Reader], moments: Mapping[str, Moments], multiple: int
) -> tuple[int, ...]:
    """A group that is narrow already, or would keep no whole multiple, has no order."""
    least = max(multiple, -(-int(group.width * LEAST_KEPT) // multiple) * multiple, group.width - len(group.free))
    if group.width <= least:
        return ()
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    readings = []
    for reader in readers:
        labels = reader.layer.inputs
        if labels is None or not set(group.free) & set(labels.tolist()):
            continue
        weight = numpy_helper.to_array(weights[reader.layer.weight])
        for part, classes in enumerate(np.split(labels, reader.layer.groups)):
            matrix = to_matrix(reader.layer, reader.window, weight, part)
            rows = np.repeat(classes, reader.window.taps)
            readings.append(Reading(moments[reader.layer.node][part], matrix, rows))
    return order(group.free, readings, group.width - least)


def _positions(proto: onnx.ModelProto, layers: Sequence[Layer], feed: Feed, run: Run) -> dict[str, int]:
    nodes = {node.output[0]: node for node in proto.graph.node if node.output}
    names = {
        layer.node: nodes[layer.node].input[0] if layer.operator == "ConvTranspose" else layer.node for layer in layers
    }
    values: dict[str, Array] = next(iter(run(proto, list(names.values()), [feed]))) if names else {}
    channels = {
        layer.node: layer.weight_shape[0 if layer.operator == "ConvTranspose" else layer.made_axis] for layer in layers
    }
    return {node: values[name].size // max(1, channels[node]) for node, name in names.items()}
