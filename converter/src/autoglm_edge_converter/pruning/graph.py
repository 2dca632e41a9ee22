"""What is known of a graph before its channels are followed: constants, shapes, who reads what, attributes of nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.source import opset_of
from autoglm_edge_converter.tensors import Array

Shape = tuple[int | None, ...]
"""A free axis is None."""

STANDARD = ("", "ai.onnx")

_FLOAT = onnx.TensorProto.FLOAT


def prepared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose constants are all initializers, whose layers have biases and whose shapes are forgotten."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    kept = []
    for node in graph.node:
        value = next((entry for entry in node.attribute if entry.name == "value"), None)
        if node.op_type == "Constant" and node.domain in STANDARD and value is not None:
            graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value.t), node.output[0]))
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    _give_biases(graph)
    return model


def _give_biases(graph: onnx.GraphProto) -> None:
    """A layer whose inputs are thinned out makes up for their mean with its bias, so it needs one."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.data_type == _FLOAT}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.domain not in STANDARD or node.input[1] not in shapes:
            continue
        if len(node.input) > 2 and node.input[2]:
            continue
        made = shapes[node.input[1]][0 if node.op_type == "Conv" or integer(node, "transB", 0) else 1]
        name = f"{node.output[0]}_bias"
        graph.initializer.append(numpy_helper.from_array(np.zeros(made, np.float32), name))
        del node.input[2:]
        node.input.append(name)


def name_of(node: onnx.NodeProto) -> str:
    """Return what a node is called in findings; exporters may leave the name empty."""
    return str(node.name or node.output[0])


class GraphFacts:
    """Constants, shapes and reads of a graph that `prepared` gave."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        fed = {value.name for value in graph.input}
        self.opset = opset_of(proto)
        self._constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in fed}
        self._shapes = _inferred(proto)
        self.reads = Counter(name for node in graph.node for name in (*node.input, *read_inside(node)) if name)
        self.reads.update(value.name for value in graph.output)

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is a weight of the model that no caller can replace."""
        return name in self._constants

    def constant(self, name: str) -> Array | None:
        """Return a constant's values, None where the tensor is computed."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def shape(self, name: str) -> Shape | None:
        """Return a tensor's shape as far as it can be proven, None where even the rank is open."""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        return self._shapes.get(name)


def _inferred(proto: onnx.ModelProto) -> dict[str, Shape]:
    try:
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        graph = proto.graph
    return {
        value.name: tuple(axis.dim_value if axis.dim_value > 0 else None for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def read_inside(node: onnx.NodeProto) -> Iterator[str]:
    """Give every tensor name that the graphs inside a control flow node read."""
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for child in inner.node:
                yield from child.input
                yield from read_inside(child)
            yield from (value.name for value in inner.output)


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute."""
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def number(node: onnx.NodeProto, name: str, default: float) -> float:
    """Return a float attribute."""
    return next((float(entry.f) for entry in node.attribute if entry.name == name), default)


def integers(node: onnx.NodeProto, name: str) -> tuple[int, ...] | None:
    """Return an attribute that is a list of integers, None where it is absent."""
    return next((tuple(entry.ints) for entry in node.attribute if entry.name == name), None)


def text(node: onnx.NodeProto, name: str, default: str) -> str:
    """Return a text attribute."""
    return next((entry.s.decode() for entry in node.attribute if entry.name == name), default)
