"""Scaling the channels of an activation alike before it is quantized, with the inverse scale on the other side.

One scale for a whole tensor wastes most of its 256 steps when a few channels are ten times larger than the rest.
Dividing each channel by a factor and multiplying the weights by it changes nothing in float and evens the channels
out. Where a node reads what a float operator made, one multiplication is inserted before it, and likewise after a
convolution that a float operator reads; within a chain of quantized nodes nothing is inserted.
Sources: SmoothQuant (arXiv 2211.10438) for the inputs; the outputs follow data-free quantization (arXiv 1906.04721).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.inspection import WeightedNode, with_followers
from autoglm_edge_converter.ranges import Observation

STRENGTH = 0.75
"""The share of the unevenness that goes into the weights. Those have a scale per output channel and bear more of it
than the even split of the paper; 1 would hurt them."""

WORTHWHILE = 1.5
"""Factors closer together than this do not pay for the multiplication they cost."""

Scales = npt.NDArray[np.float32]


def equalise(proto: onnx.ModelProto, nodes: Sequence[WeightedNode], observation: Observation) -> onnx.ModelProto:
    """Return a model that answers the same, with even channels around the nodes given. The one given stays."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    quantized = with_followers(graph, [node.name for node in nodes])
    made_inside = {name for node in graph.node if node.name in quantized for name in node.output}
    read_inside = {name for node in graph.node if node.name in quantized for name in node.input}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    by_name = {node.name: node for node in nodes if _is_simple(node, graph)}
    rewritten: list[onnx.NodeProto] = []
    for node in graph.node:
        facts = by_name.get(node.name)
        if facts is None:
            rewritten.append(node)
            continue
        weight = numpy_helper.to_array(weights[facts.weight]).astype(np.float32)
        before, weight = _scale_input(graph, node, facts, weight, observation, made_inside)
        after, weight = _scale_output(graph, node, facts, weight, observation, read_inside)
        if before or after:
            node.input[1] = _add_constant(graph, f"{node.name}_weight", weight)
        rewritten.extend([*before, node, *after])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in rewritten]
    del graph.node[:]
    graph.node.extend(copies)
    return model


def _is_simple(node: WeightedNode, graph: onnx.GraphProto) -> bool:
    """Ungrouped convolutions and matrices of two axes; the others keep their channels as they are."""
    proto = next(entry for entry in graph.node if entry.name == node.name)
    attributes = {attribute.name: attribute for attribute in proto.attribute}
    if node.operator == "Conv":
        return "group" not in attributes or attributes["group"].i == 1
    return node.operator == "MatMul" and len(node.weight_shape) == 2


def _scale_input(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    facts: WeightedNode,
    weight: Scales,
    observation: Observation,
    made_inside: Collection[str],
) -> tuple[list[onnx.NodeProto], Scales]:
    name = node.input[0]
    peaks = observation[name].channel_peaks if name in observation else None
    axis = 1 if facts.operator == "Conv" else 0
    if name in made_inside or peaks is None or len(peaks) != weight.shape[axis]:
        return [], weight
    other = tuple(index for index in range(weight.ndim) if index != axis)
    scales = smooth_scales(peaks, np.abs(weight).max(axis=other))
    if scales is None:
        return [], weight
    inverse = _along(np.float32(1) / scales, facts, len(observation[name].shape))
    constant = _add_constant(graph, f"{node.name}_even", inverse)
    node.input[0] = f"{node.name}_evened"
    multiply = onnx.helper.make_node("Mul", [name, constant], [node.input[0]], name=f"{node.name}_even")
    return [multiply], weight * scales.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])


def _scale_output(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    facts: WeightedNode,
    weight: Scales,
    observation: Observation,
    read_inside: Collection[str],
) -> tuple[list[onnx.NodeProto], Scales]:
    name = node.output[0]
    peaks = observation[name].channel_peaks if name in observation else None
    has_bias = len(node.input) > 2 and bool(node.input[2])
    outer = name in {value.name for value in graph.output}
    if facts.operator != "Conv" or name in read_inside or peaks is None or has_bias or outer or not peaks.max() > 0:
        return [], weight
    scales = np.maximum(peaks / peaks.max(), 1e-3).astype(np.float32)
    constant = _add_constant(graph, f"{node.name}_back", _along(scales, facts, len(observation[name].shape)))
    node.output[0] = f"{node.name}_scaled"
    multiply = onnx.helper.make_node("Mul", [node.output[0], constant], [name], name=f"{node.name}_back")
    return [multiply], weight / scales.reshape([-1] + [1] * (weight.ndim - 1))


def smooth_scales(activation_peaks: Scales, weight_peaks: Scales) -> Scales | None:
    """Return the factor per channel, float32 [channels], with geometric mean 1.

    None where it is not worth a multiplication, or where a channel is all zero and has no scale.
    """
    if not (activation_peaks > 0).all() or not (weight_peaks > 0).all():
        return None
    scales = activation_peaks.astype(np.float64) ** STRENGTH / weight_peaks.astype(np.float64) ** (1 - STRENGTH)
    scales /= np.exp(np.log(scales).mean())
    return np.asarray(scales, np.float32) if scales.max() >= WORTHWHILE * scales.min() else None


def _along(values: Scales, facts: WeightedNode, rank: int) -> Scales:
    return values.reshape(1, -1, *[1] * (rank - 2)) if facts.channel_axis == 1 else values


def _add_constant(graph: onnx.GraphProto, name: str, values: Scales) -> str:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    return name
