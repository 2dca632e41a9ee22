"""A network of 10 MB as float and as INT8, and what releases of it change. The weights are random: bytes count here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT_WIDTHS = (32, 64, 64, 128, 128, 256, 256, 256, 256)
INT8_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512)
CLASSES = 1000


@dataclass(frozen=True)
class Network:
    """3x3 convolutions with bias and ReLU, then a dense layer: what each is drawn from, and how it is stored.

    Layers are numbered from 0; the last one is the dense one.
    """

    widths: tuple[int, ...]
    seeds: Mapping[int, int]
    """Of the layers that were trained again."""
    quantized: frozenset[int]
    producer: str = "1.0"

    @property
    def last(self) -> int:
        return len(self.widths)

    def shape(self, layer: int) -> tuple[int, ...]:
        if layer == self.last:
            return (CLASSES, self.widths[-1])
        return (self.widths[layer], self.widths[layer - 1] if layer else 3, 3, 3)

    def layer_bytes(self, layer: int) -> int:
        return int(np.prod(self.shape(layer))) * (1 if layer in self.quantized else 4)

    def serialized(self) -> bytes:
        """Return the ONNX file."""
        nodes, tensors, value = [], [], "x"
        for layer in range(self.last + 1):
            weights, result = f"w{layer}", "y" if layer == self.last else f"h{layer}"
            tensors += self._tensors(layer)
            if layer in self.quantized:
                inputs = [f"q{layer}", f"scale{layer}", f"zero{layer}"]
                nodes.append(helper.make_node("DequantizeLinear", inputs, [weights], axis=0))
            if layer == self.last:
                nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"]))
                nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
                nodes.append(helper.make_node("Gemm", ["flat", weights, f"b{layer}"], [result], transB=1))
            else:
                pads = {"pads": [1, 1, 1, 1], "strides": [2, 2] if layer % 2 else [1, 1]}
                nodes.append(helper.make_node("Conv", [value, weights, f"b{layer}"], [f"c{layer}"], **pads))
                nodes.append(helper.make_node("Relu", [f"c{layer}"], [result]))
            value = result
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 64, 64])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])
        graph = helper.make_graph(nodes, "network", [x], [y], tensors)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, producer_name="benchmark", producer_version=self.producer, opset_imports=opset)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    def _tensors(self, layer: int) -> list[onnx.TensorProto]:
        random = np.random.default_rng([layer, self.seeds.get(layer, 0)])
        shape = self.shape(layer)
        weights = random.standard_normal(shape, dtype=np.float32)
        bias = numpy_helper.from_array(random.standard_normal(shape[0], dtype=np.float32), f"b{layer}")
        if layer not in self.quantized:
            return [numpy_helper.from_array(weights, f"w{layer}"), bias]
        scale = np.abs(weights).reshape(shape[0], -1).max(1) / 127
        integers = np.round(weights / scale.reshape(-1, *[1] * (len(shape) - 1))).astype(np.int8)
        return [
            numpy_helper.from_array(integers, f"q{layer}"),
            numpy_helper.from_array(scale.astype(np.float32), f"scale{layer}"),
            numpy_helper.from_array(np.zeros(shape[0], np.int8), f"zero{layer}"),
            bias,
        ]


FLOAT = Network(FLOAT_WIDTHS, {}, frozenset())
INT8 = Network(INT8_WIDTHS, {}, frozenset(range(len(INT8_WIDTHS) + 1)))
MIDDLE = 4

CHANGES: dict[str, tuple[Network, Network]] = {
    "released again, unchanged": (FLOAT, FLOAT),
    "last layer trained again": (FLOAT, replace(FLOAT, seeds={FLOAT.last: 1})),
    "the same, written by another exporter": (FLOAT, replace(FLOAT, seeds={FLOAT.last: 1}, producer="1.10.0")),
    "a layer quantized again": (INT8, replace(INT8, seeds={MIDDLE: 1})),
    "a layer put back to float": (INT8, replace(INT8, quantized=INT8.quantized - {MIDDLE})),
    "all layers trained again": (FLOAT, replace(FLOAT, seeds=dict.fromkeys(range(FLOAT.last + 1), 1))),
}
"""What the device has, and what comes."""
