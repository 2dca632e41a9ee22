"""What each layer weighs and looks like in the written models: sizes, noise along the way, histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from autoglm_edge_converter.inspection import WEIGHTED
from autoglm_edge_converter.report.document import Histogram
from autoglm_edge_converter.tensors import Array

BINS = 64
MOST_VALUES = 200_000


@dataclass(frozen=True)
class Weighted:
    """A node with weights as it stands in a float or a quantized graph."""

    name: str
    operator: str
    weight: str
    """The tensor that goes in, dequantized where it is stored on 8 bits."""
    output: str
    """The tensor that comes out, after its activation, and after it went through 8 bits where it does."""


def weighted(graph: onnx.GraphProto) -> dict[str, Weighted]:
    """Return the nodes with weights by name."""
    by_input: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            by_input.setdefault(name, []).append(node)
    return {
        node.name: Weighted(node.name, node.op_type, node.input[1], _end_of(node.output[0], by_input))
        for node in graph.node
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.name
    }


def _end_of(tensor: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> str:
    """Follow the activation behind a node and pairs of QuantizeLinear and DequantizeLinear, in whatever order.

    A quantizer leaves a ReLU out where the range that starts at zero already does it, so only what comes after the
    activation can be compared.
    """
    while len(following := readers.get(tensor, ())) == 1:
        (node,) = following
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "LeakyRelu"):
            break
        after = str(node.output[0])
        if node.op_type == "QuantizeLinear" and [r.op_type for r in readers.get(after, ())] != ["DequantizeLinear"]:
            break
        tensor = after
    return tensor


def constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Return constants by name, those behind a DequantizeLinear as the float numbers that they stand for."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = {name: np.asarray(onnx.numpy_helper.to_array(tensor)) for name, tensor in stored.items()}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and all(name in stored for name in node.input if name):
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            found[node.output[0]] = _dequantized([found[name] for name in node.input if name], axis)
        if node.op_type == "Cast" and node.input[0] in stored:
            found[node.output[0]] = found[node.input[0]]
    return found


def _dequantized(parts: Sequence[Array], axis: int) -> Array:
    values, scale = parts[0].astype(np.float32), parts[1].astype(np.float32)
    zero = parts[2].astype(np.float32) if len(parts) > 2 else np.zeros_like(scale)
    if scale.size > 1:
        if scale.ndim > 1 or values.shape[axis] != scale.size:
            return values  # in blocks along an axis; the raw numbers still show the shape of the distribution
        shape = [-1 if number == axis % values.ndim else 1 for number in range(values.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((values - zero) * scale)


def stored_bytes(graph: onnx.GraphProto) -> dict[str, int]:
    """Return what each weighted node's constants weigh in the file, by name."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    return {
        node.name: sum(_stored_bytes(name, stored, makers) for name in node.input[1:])
        for node in graph.node
        if node.op_type in WEIGHTED and node.name
    }


def _stored_bytes(
    name: str, stored: Mapping[str, onnx.TensorProto], makers: Mapping[str, onnx.NodeProto], depth: int = 3
) -> int:
    if name in stored:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(stored[name].data_type)
        return int(math.prod(stored[name].dims) * dtype.itemsize)
    maker = makers.get(name)
    if maker is None or depth == 0 or maker.op_type not in ("DequantizeLinear", "Cast", "Transpose", "Reshape"):
        return 0
    return sum(_stored_bytes(entry, stored, makers, depth - 1) for entry in maker.input if entry)


def histogram(title: str, before: Sequence[Array], after: Sequence[Array]) -> Histogram | None:
    """Return how the values are spread before and after; None where there are none, or they are not finite."""
    old, new = _flat(before), _flat(after)
    if not old.size or not new.size or not (np.isfinite(old).all() and np.isfinite(new).all()):
        return None
    low, high = float(min(old.min(), new.min())), float(max(old.max(), new.max()))
    if high <= low:
        return None
    shares = [np.histogram(values, BINS, (low, high))[0] / values.size for values in (old, new)]
    levels = len(np.unique(new))
    return Histogram(
        title,
        low,
        high,
        tuple(float(share) for share in shares[0]),
        tuple(float(share) for share in shares[1]),
        levels if levels <= 256 else None,
    )


def _flat(arrays: Sequence[Array]) -> Array:
    if not arrays:
        return np.zeros(0)
    flat = np.concatenate([array.reshape(-1) for array in arrays]).astype(np.float64)
    return flat[:: max(1, flat.size // MOST_VALUES)]
