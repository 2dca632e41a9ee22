"""Bias correction in TFLite files: see `autoglm_edge_converter.bias`, which has the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from autoglm_edge_converter.bias import mean_shift, rounding_error
from autoglm_edge_converter.ranges import Activation
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.tflite.editing import constant, forget_unread, serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.nodes import Node, Prepared
from autoglm_edge_converter.tflite.schema import Table, tables

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def correctable(prepared: Prepared) -> dict[str, int]:
    """Return the bias tensor of each node that has one of its own, by the node's name."""
    graph = prepared.graph
    readers = Counter(index for entry in graph.operations for index in entry.inputs)
    biases = {entry.outputs[0]: entry.inputs[2] for entry in graph.operations if len(entry.inputs) > 2}
    found = {node.name: biases.get(node.output, -1) for node in prepared.nodes if _has_rows(node)}
    return {
        name: bias
        for name, bias in found.items()
        if bias >= 0 and readers[bias] == 1 and graph.tensors[bias].dtype == "float32"
    }


def correct_biases(prepared: Prepared, chosen: Collection[str], observation: Mapping[int, Activation]) -> Prepared:
    """Return the file with biases less the mean effect of rounding the weights of the nodes chosen, channel by channel.

    Padding is taken as if it held the mean too, which is right but at the borders.
    """
    changed = unpack(prepared.data)
    tensors = changed.subgraphs[0].tensors
    biases = correctable(prepared)
    for node in prepared.nodes:
        seen = observation.get(node.data)
        if node.name not in chosen or node.name not in biases or seen is None or seen.channel_means is None:
            continue
        bias = tensors[biases[node.name]]
        old, weight = constant(changed, bias), constant(changed, tensors[node.weight])
        if old is None or weight is None:
            continue
        shift = _shift(node, weight, seen.channel_means / len(seen.minima))
        if shift is not None and shift.shape == old.shape:
            bias.buffer = _add_buffer(changed, (old - shift).astype(np.float32))
    forget_unread(changed)
    data = serialize(changed)
    return replace(prepared, data=data, model=read_model(data))


def _has_rows(node: Node) -> bool:
    return node.kind in _LAYERS and node.constant


def _shift(node: Node, weight: Array, means: Array) -> Array | None:
    """Weights are [outputs, height, width, inputs of a group], depthwise ones [1, height, width, outputs]."""
    if node.kind == "DEPTHWISE_CONV_2D":
        rows, groups = np.moveaxis(weight, -1, 0), len(means)
    else:
        rows = np.moveaxis(weight, -1, 1)
        groups = max(1, len(means) // rows.shape[1])
    if rows.shape[0] % groups:
        return None
    return mean_shift(rounding_error(rows), means, groups)


def _add_buffer(model: Table, values: Array) -> int:
    """Other tensors may share the old one."""
    buffer = tables.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1
