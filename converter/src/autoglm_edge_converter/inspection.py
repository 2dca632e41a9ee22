"""What in a graph is worth quantizing: the nodes with weights, and what follows from them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Where the multiplications are."""

MOVERS = frozenset(("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice"))
"""Followers that only move numbers: worth quantizing between quantized nodes, not at the end of a chain."""

FOLLOWERS = MOVERS | frozenset(
    ("Add", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Resize", "Pad")
)
"""Cheap operators that the runtime does on 8-bit numbers: quantizing them saves going to float and back. The others
(normalisation, GELU, softmax, ...) lose much by it and gain nothing."""


@dataclass(frozen=True)
class WeightedNode:
    """A node whose second input is a constant float32 weight."""

    name: str
    operator: str
    weight: str
    weight_shape: tuple[int, ...]

    @property
    def channel_axis(self) -> int:
        """The axis of channels in the node's input and output: 1 for convolutions, the last for the others."""
        return 1 if self.operator.startswith("Conv") else -1


def weighted_nodes(graph: onnx.GraphProto) -> tuple[WeightedNode, ...]:
    """Return the nodes worth quantizing, in the graph's order. Names must be unique."""
    weights = {
        tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT
    }
    return tuple(
        WeightedNode(node.name, node.op_type, node.input[1], weights[node.input[1]])
        for node in graph.node
        if node.op_type in WEIGHTED and node.domain in ("", "ai.onnx") and node.input[1] in weights
    )


def with_followers(graph: onnx.GraphProto, chosen: Collection[str]) -> frozenset[str]:
    """Return the chosen nodes and every follower whose float inputs all come from nodes in the set.

    Movers that no node in the set reads are left out again.
    """
    constants = {tensor.name for tensor in graph.initializer}
    nodes = set(chosen)
    tensors = {name for node in graph.node if node.name in nodes for name in node.output}
    for node in graph.node:
        if node.name in nodes or node.op_type not in FOLLOWERS:
            continue
        inputs = [name for name in node.input if name and name not in constants]
        if not inputs or not all(name in tensors for name in inputs[: _data_inputs(node)]):
            continue
        if node.op_type == "Add" and len(inputs) < 2:
            continue  # adding a constant is cheaper in float than an 8-bit addition of two ranges
        nodes.add(node.name)
        tensors.update(node.output)
    return _without_trailing_movers(graph, nodes)


def _without_trailing_movers(graph: onnx.GraphProto, nodes: set[str]) -> frozenset[str]:
    read: set[str] = set()
    kept: set[str] = set()
    for node in reversed(graph.node):
        if node.name not in nodes or (node.op_type in MOVERS and not read.intersection(node.output)):
            continue
        kept.add(node.name)
        read.update(node.input)
    return frozenset(kept)


def _data_inputs(node: onnx.NodeProto) -> int:
    """How many of the inputs carry data; the rest of Reshape, Slice, Clip, ... are shapes, indices and bounds."""
    return len(node.input) if node.op_type in ("Add", "Concat") else 1
