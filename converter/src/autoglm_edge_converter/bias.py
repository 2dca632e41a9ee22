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
        matrix = weight.T if transposed else weight
        if matrix.shape[0] != len(means):
            return None
        return np.asarray(means @ _error(matrix, 1, peaks))
    groups = attributes["group"].i if "group" in attributes else 1
    error = _error(weight, 0, peaks).sum(axis=tuple(range(2, weight.ndim)))
    if weight.shape[1] * groups != len(means):
        return None
    per_output = np.repeat(means.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return np.asarray((error * per_output).sum(axis=1))


def _error(weight: Array, axis: int, peaks: Array | None) -> Array:
    values, scales = round_to_int8(weight, axis, peaks)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    return np.asarray(values * scales.reshape(shape) - weight)
