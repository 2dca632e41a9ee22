"""Bias correction: the mean of what rounding the weights adds to an output is known, so it can be taken out.

For symmetric 8-bit weights Q(W) and the mean input m per channel, the outputs move by (Q(W) - W) m on average.
Source: data-free quantization through weight equalization and bias correction (arXiv 1906.04721), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.inspection import WeightedNode
from autoglm_edge_converter.ranges import Observation
from autoglm_edge_converter.saturation import paired_peaks
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.weights_only import round_to_int8


def correct_biases(
    proto: onnx.ModelProto, nodes: Sequence[WeightedNode], observation: Observation, paired: bool = False
) -> onnx.ModelProto:
    """Return a copy whose convolutions and Gemms have biases less the mean effect of rounding their weights.

    `paired`: the weights' scales leave room for the sum of two products (see `saturation`).
    Padding is taken as if it held the mean too, which is right but at the borders.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    facts = {node.name: node for node in nodes}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        found = facts.get(node.name)
        seen = observation.get(node.input[0]) if found else None
        if found is None or seen is None or seen.channel_means is None or node.op_type not in ("Conv", "Gemm"):
            continue
        means = seen.channel_means / len(seen.minima)
        weight = numpy_helper.to_array(constants[found.weight])
        shift = _shift(node, weight, means, paired_peaks(node, weight) if paired else None)
        bias = node.input[2] if len(node.input) > 2 else ""
        if shift is None or (bias and bias not in constants) or (node.op_type == "Gemm" and not bias):
            continue
        old = numpy_helper.to_array(constants[bias]) if bias else np.zeros(shift.shape, np.float32)
        if old.shape != shift.shape:
            continue
        name = f"{node.name}_corrected"
        graph.initializer.append(numpy_helper.from_array((old - shift).astype(np.float32), name))
        del node.input[2:]
        node.input.append(name)
    return model


def _shift(node: onnx.NodeProto, weight: Array, means: Array, peaks: Array | None) -> Array | None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Gemm":
        transposed = "transB" in attributes and attributes["transB"].i
        matrix = weight if transposed else weight.T
        return mean_shift(rounding_error(matrix, peaks), means)
    groups = attributes["group"].i if "group" in attributes else 1
    return mean_shift(rounding_error(weight, peaks), means, groups)


def rounding_error(weight: Array, peaks: Array | None = None) -> Array:
    """Return what rounding to 8 bits adds to weights with the output channels on their first axis."""
    values, scales = round_to_int8(weight, 0, peaks)
    return np.asarray(values * scales.reshape(-1, *[1] * (weight.ndim - 1)) - weight)


def mean_shift(error: Array, means: Array, groups: int = 1) -> Array | None:
    """Return by how much an error of the weights moves each output on average.

    `error`: [outputs, inputs of a group, ...]; what lies behind are places that all see the same means. `means`: of the
    input's channels, [inputs of a group * groups]. None where they do not belong together.
    """
    if error.shape[1] * groups != len(means):
        return None
    per_output = np.repeat(means.reshape(groups, -1), error.shape[0] // groups, axis=0)
    return np.asarray((error.sum(axis=tuple(range(2, error.ndim))) * per_output).sum(axis=1))
