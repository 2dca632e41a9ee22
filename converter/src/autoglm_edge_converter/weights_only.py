"""Storing weights on fewer bits while everything is computed in float: smaller files, the same arithmetic.

8 bits: a `DequantizeLinear` with a scale per output channel before each weighted node. 16 bits: a `Cast` before each
reader of a large constant; the runtime folds it when it loads the model, so that it costs nothing at a run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.inspection import weighted_nodes
from autoglm_edge_converter.tensors import Array

SMALLEST = 256
"""Constants of fewer elements are kept as they are: what they would save is less than the node they would cost."""

LARGEST_HALF = 65504.0


def eight_bit_weights(proto: onnx.ModelProto, chosen: Collection[str]) -> onnx.ModelProto:
    """Return a copy of `proto` in which the weights of the nodes chosen are int8 with a scale per output channel.

    Weights that a node outside of those chosen reads too stay in float.
    """
    model = _copy(proto)
    graph = model.graph
    nodes = [node for node in weighted_nodes(graph) if node.name in chosen]
    readers = _readers(graph, {node.weight for node in nodes})
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        tensor = weights[node.weight]
        if node.weight in made or readers[node.weight] > 1 or np.prod(tensor.dims) < SMALLEST:
            continue
        axis = _output_axis(graph, node.name, node.operator, len(tensor.dims))
        values, scales = round_to_int8(numpy_helper.to_array(tensor), axis)
        zeros = np.zeros(scales.shape, np.int8)
        names = [f"{node.weight}_{part}" for part in ("int8", "scale", "zero")]
        for name, array in zip(names, (values, scales, zeros), strict=True):
            graph.initializer.append(numpy_helper.from_array(array, name))
        made[node.weight] = [
            onnx.helper.make_node("DequantizeLinear", names, [node.weight], name=f"{node.weight}_float", axis=axis)
        ]
    return _replace_constants(model, made)


def half_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `proto` with its large float32 constants on 16 bits. Those out of range stay as they are."""
    model = _copy(proto)
    graph = model.graph
    made: dict[str, list[onnx.NodeProto]] = {}
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        array = numpy_helper.to_array(tensor)
        if np.abs(array).max() > LARGEST_HALF:
            continue
        name = f"{tensor.name}_half"
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), name))
        cast = onnx.helper.make_node(
            "Cast", [name], [tensor.name], name=f"{tensor.name}_float", to=onnx.TensorProto.FLOAT
        )
        made[tensor.name] = [cast]
    return _replace_constants(model, made)


def round_to_int8(weight: Array, axis: int, peaks: Array | None = None) -> tuple[Array, Array]:
    """Return int8 values of the weight's shape and the float32 scales along `axis`: symmetric, -127 to 127.

    `peaks`: what 127 stands for in each channel; the largest magnitude when left out.
    """
    if peaks is None:
        peaks = np.abs(weight).max(axis=tuple(index for index in range(weight.ndim) if index != axis))
    scales = np.where(peaks > 0, peaks / 127, 1).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    return np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8), scales


def _output_axis(graph: onnx.GraphProto, name: str, operator: str, rank: int) -> int:
    if operator == "Conv":
        return 0
    if operator == "ConvTranspose":
        return 1
    node = next(entry for entry in graph.node if entry.name == name)
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return rank - 2 if transposed else rank - 1


def _readers(graph: onnx.GraphProto, names: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(names, 0)
    for node in graph.node:
        for name in node.input:
            if name in counts:
                counts[name] += 1
    return counts


def _replace_constants(model: onnx.ModelProto, made: dict[str, list[onnx.NodeProto]]) -> onnx.ModelProto:
    graph = model.graph
    outer = {value.name for value in graph.output}
    for tensor in [entry for entry in graph.initializer if entry.name in made and entry.name not in outer]:
        graph.initializer.remove(tensor)
    front = [node for nodes in made.values() for node in nodes]
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*front, *rest])
    return model


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
