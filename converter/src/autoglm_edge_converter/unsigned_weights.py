"""Signed 8-bit weights rewritten as unsigned ones: every value and its zero point moved by 128, so nothing changes.

Kernels for unsigned by unsigned numbers do not saturate on x86 without VNNI (see `processor`).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.inspection import WEIGHTED

MIDDLE = 128


def unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the int8 weights of its products as uint8. Changed in place.

    Weights stand behind a DequantizeLinear, or go into a MatMulInteger as they are.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    moved: dict[str, str] = {}
    for node, at, zero_at in _weights_in(graph):
        for position in (at, zero_at):
            name = node.input[position] if position < len(node.input) else ""
            tensor = constants.get(moved.get(name, name))
            if tensor is None:
                continue
            if tensor.data_type == onnx.TensorProto.INT8:
                # A zero point may be shared with an activation, which stays as it is: each gets a copy of its own.
                moved[name] = f"{name}_unsigned"
                values = numpy_helper.to_array(tensor).astype(np.int16) + MIDDLE
                constants[moved[name]] = numpy_helper.from_array(np.asarray(values, np.uint8), moved[name])
                graph.initializer.append(constants[moved[name]])
            if name in moved:
                node.input[position] = moved[name]
    _drop_unread(graph, moved)
    return model


def _weights_in(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, int, int]]:
    """Return the nodes that hold 8-bit weights, and which of their inputs are values and zero point."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    read_as_weight = {node.input[1] for node in graph.node if node.op_type in WEIGHTED and len(node.input) > 1}
    found = []
    for node in graph.node:
        dequantized = node.op_type == "DequantizeLinear" and node.output[0] in read_as_weight
        if dequantized and _is_int8(constants.get(node.input[0])) and len(node.input) > 2:
            found.append((node, 0, 2))
        if node.op_type == "MatMulInteger" and _is_int8(constants.get(node.input[1])) and len(node.input) > 3:
            found.append((node, 1, 3))
    return found


def _is_int8(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == onnx.TensorProto.INT8


def _drop_unread(graph: onnx.GraphProto, moved: dict[str, str]) -> None:
    read = {name for node in graph.node for name in node.input}
    for tensor in [entry for entry in graph.initializer if entry.name in moved and entry.name not in read]:
        graph.initializer.remove(tensor)
