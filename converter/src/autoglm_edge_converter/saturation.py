"""Scales for signed 8-bit weights with which no sum of two products saturates in 16 bits.

Kernels without VNNI add the products of two neighbouring weights, w and v, with activations up to 255 in a signed
16-bit number: it overflows above 255 x (w + v) = 32,767, so w + v may be 128 at most, and -128 at least. 7-bit weights
always keep that. Most neighbours are far from the largest weight, so a scale made for the largest sum of two wastes
less. Neighbours are those along the sum: input channels first or places first, as the kernels lay them out. Depthwise
convolutions have a kernel of their own, which widens before it adds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.inspection import weighted_nodes
from autoglm_edge_converter.tensors import Array


def paired_peaks(node: onnx.NodeProto, weight: Array) -> Array:
    """Return what 127 has to stand for in each output channel, float32 [outputs]; see `output_axis`.

    Rounding moves a sum of two by at most one step, which the 128 has room for.
    """
    largest = np.abs(weight).max(axis=tuple(n for n in range(weight.ndim) if n != output_axis(node, weight.ndim)))
    if is_depthwise(node, weight.shape):
        return np.asarray(largest, np.float32)
    peaks = [largest, *(_largest_sum(rows) for rows in _orders(node, weight))]
    return np.asarray(np.max(peaks, axis=0), np.float32)


def _largest_sum(rows: Array) -> Array:
    """Return the largest magnitude of the sum of two neighbours in each row [outputs, ..., summed]."""
    sums = np.abs(rows[..., :-1] + rows[..., 1:])
    return np.asarray(sums.max(axis=tuple(range(1, sums.ndim)), initial=0.0))


def _orders(node: onnx.NodeProto, weight: Array) -> list[Array]:
    """Return the weights with outputs first and what is summed last, in the orders that kernels have."""
    outputs = output_axis(node, weight.ndim)
    if node.op_type in ("MatMul", "Gemm"):
        summed = weight.ndim - 1 if outputs == weight.ndim - 2 else weight.ndim - 2
        return [np.moveaxis(weight, (outputs, summed), (0, -1))]
    first = np.moveaxis(weight, outputs, 0)
    channels_last = np.moveaxis(first, 1, -1)
    return [first.reshape(len(first), -1), channels_last.reshape(len(first), -1)]


def output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Return the axis of the output channels in the weight of a node."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return rank - 2 if transposed else rank - 1


def is_depthwise(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Tell whether each output of a convolution reads one input channel, and each of those makes one output."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "Conv" and shape[1] == 1 and shape[0] == groups > 1


def scale_overrides(graph: onnx.GraphProto, chosen: Collection[str], per_channel: bool) -> dict[str, list[object]]:
    """Return `TensorQuantOverrides` of onnxruntime's quantizer for the weights of the nodes chosen."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    peaks: dict[str, Array] = {}
    axes: dict[str, int] = {}
    nodes = {node.name: node for node in graph.node}
    for found in weighted_nodes(graph):
        if found.name not in chosen:
            continue
        weight = numpy_helper.to_array(constants[found.weight])
        known = paired_peaks(nodes[found.name], weight)
        if found.weight in peaks:
            known = np.maximum(peaks[found.weight], known) if known.shape == peaks[found.weight].shape else known
        peaks[found.weight] = known
        axes[found.weight] = output_axis(nodes[found.name], weight.ndim)
    return {name: _ranges(peak, axes[name] if per_channel else None) for name, peak in peaks.items()}


def _ranges(peaks: Array, axis: int | None) -> list[object]:
    if axis is None:
        largest = np.float32(peaks.max())
        return [{"rmin": -largest, "rmax": largest}]
    found: list[Mapping[str, object]] = [{"axis": axis, "rmin": -peak, "rmax": peak} for peak in peaks]
    return list(found)
