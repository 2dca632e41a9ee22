"""Building one INT8 candidate: static, quantize-dequantize format.

Activations are unsigned (U8S8), which the VNNI kernels of onnxruntime on x86 are fastest at, or signed (S8S8). Weights
are signed, with scales for what is largest or for pairs, or the same moved to unsigned ones (U8U8).
Ranges come from `ranges`, so nothing is calibrated here. Source: onnxruntime.quantization 1.20 and later, whose QDQ
quantizer is used without its calibration and shape inference, which fail on many real graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from autoglm_edge_converter.inspection import with_followers
from autoglm_edge_converter.passes import sort_nodes, strip_metadata
from autoglm_edge_converter.ranges import RANGES, Observation, tensors_of
from autoglm_edge_converter.recipes import PAIRED, UINT8, Recipe, Tuned
from autoglm_edge_converter.saturation import scale_overrides
from autoglm_edge_converter.unsigned_weights import unsigned_weights

_FLOAT_OUTPUT = ("MatMul", "Gemm")
"""Operators with an 8-bit kernel that answers in float; a convolution has none."""


_AS_SEEN = (1.0, 1.0)


class _BoundaryQuantizer(QDQQuantizer):  # type: ignore[misc]  # onnxruntime has no types
    """Leaves some tensors in float although a quantized node touches them."""

    def __init__(self, left_in_float: Collection[str], *arguments: object) -> None:
        super().__init__(*arguments)
        self._left_in_float = frozenset(left_in_float)

    def quantize_activation_tensor(self, tensor_name: str) -> None:
        """Mark a tensor for quantization, unless it is to stay."""
        if tensor_name not in self._left_in_float:
            super().quantize_activation_tensor(tensor_name)


def quantize(
    proto: onnx.ModelProto,
    recipe: Recipe,
    chosen: Collection[str],
    observation: Observation,
    tuned: Sequence[Tuned] = (),
) -> onnx.ModelProto:
    """Return `proto` with the chosen weighted nodes, and what follows from them, on 8-bit numbers.

    `observation` must hold the tensors of those nodes. The model given is not changed. Errors of the quantizer pass
    through: a graph that it cannot do is a finding.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    nodes = quantized_nodes(model.graph, chosen, recipe)
    tensors = [name for name in tensors_of(model.graph, nodes) if name in observation]
    _tell_types(model.graph, tensors)
    to_range = RANGES[recipe.ranges]
    factors = {entry.tensor: (entry.low, entry.high) for entry in tuned}
    ranges = {}
    for name in tensors:
        low, high = to_range(observation[name])
        low, high = low * factors.get(name, _AS_SEEN)[0], high * factors.get(name, _AS_SEEN)[1]
        ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    operators = sorted({node.op_type for node in model.graph.node if node.name in nodes})
    paired = recipe.weights == PAIRED
    overrides = scale_overrides(model.graph, chosen, recipe.per_channel) if paired else {}
    quantizer = _BoundaryQuantizer(
        needless_boundaries(model.graph, nodes),
        model,
        recipe.per_channel,
        False,
        QuantType.QInt8,
        QuantType.QInt8 if recipe.signed else QuantType.QUInt8,
        ranges,
        sorted(nodes),
        [],
        operators,
        {"WeightSymmetric": True, "ActivationSymmetric": False, "TensorQuantOverrides": overrides},
    )
    _quietly(quantizer)
    result: onnx.ModelProto = quantizer.model.model
    if recipe.weights == UINT8:
        unsigned_weights(result)
    sort_nodes(result.graph)
    return strip_metadata(result)


def quantized_nodes(graph: onnx.GraphProto, chosen: Collection[str], recipe: Recipe) -> frozenset[str]:
    """Return every node that a recipe quantizes when it is given these weighted ones."""
    return with_followers(graph, chosen) if recipe.followers else frozenset(chosen)


def _quietly(quantizer: QDQQuantizer) -> None:
    """The quantizer tells on the root logger what it does with each bias."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantizer.quantize_model()
    finally:
        root.setLevel(level)


def needless_boundaries(graph: onnx.GraphProto, nodes: Collection[str]) -> frozenset[str]:
    """Return outputs of quantized nodes that would go to 8 bits and straight back.

    That is so where the operator has a kernel with a float result and no quantized node reads it.
    """
    read = {name for node in graph.node if node.name in nodes for name in node.input}
    return frozenset(
        name
        for node in graph.node
        if node.name in nodes and node.op_type in _FLOAT_OUTPUT
        for name in node.output
        if name not in read
    )


def _tell_types(graph: onnx.GraphProto, tensors: Collection[str]) -> None:
    """The quantizer skips tensors whose type it does not know; those observed are float32 whatever inference says."""
    known = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors if name not in known
    )
