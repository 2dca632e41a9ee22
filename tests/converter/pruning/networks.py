"""Small random networks whose channels are coupled in every way that is followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 8
"""Of the square pictures that they take."""


class Network:
    """Grows a graph block by block; `here` is the tensor at its end and `width` its channels."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.here, self.width = "x", 3

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, *shape: int) -> str:
        scale = 1 / math.sqrt(math.prod(shape[1:]))
        return self.constant((self.random.normal(size=shape) * scale).astype(np.float32))

    def add(self, operator: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        number = len(self.nodes)
        names = [f"{operator}{number}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, f"{operator}_{number}", **attributes))
        self.here = names[-1]
        return names

    def conv(self, made: int, kernel: int = 3, group: int = 1, source: str | None = None) -> str:
        weight = self.normal(made, self.width // group, kernel, kernel)
        pads = [kernel // 2] * 4
        [name] = self.add("Conv", [source or self.here, weight, self.normal(made)], group=group, pads=pads)
        self.width = made
        return name

    def model(self, head: bool = True) -> onnx.ModelProto:
        if head:
            self.add("GlobalAveragePool", [self.here])
            self.add("Flatten", [self.here])
            self.add("Gemm", [self.here, self.normal(5, self.width), self.normal(5)], transB=1)
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, SIZE, SIZE))],
            [helper.make_tensor_value_info(self.here, TensorProto.FLOAT, None)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def plain(net: Network) -> None:
    net.conv(12)
    net.add("LeakyRelu", [net.here], alpha=0.1)


def normalised(net: Network) -> None:
    net.conv(8)
    width = net.width
    positive = net.constant((net.random.random(width) + 0.5).astype(np.float32))
    net.add("BatchNormalization", [net.here, net.normal(width), net.normal(width), net.normal(width), positive])
    net.add("PRelu", [net.here, net.normal(width, 1, 1)])


def residual(net: Network) -> None:
    before, width = net.here, net.width
    net.conv(10)
    net.add("Relu", [net.here])
    net.conv(width)
    net.add("Add", [before, net.here])


def depthwise(net: Network) -> None:
    net.conv(8, kernel=1)
    net.add("Clip", [net.here, net.constant(np.array(0, np.float32)), net.constant(np.array(6, np.float32))])
    net.conv(net.width * int(net.random.integers(1, 3)), group=net.width)


def grouped(net: Network) -> None:
    net.conv(8, kernel=1)
    net.conv(12, group=2)


def beside(net: Network) -> None:
    source, width = net.here, net.width
    first = net.conv(6, source=source)
    net.width = width
    second = net.conv(4, kernel=1, source=source)
    net.add("Concat", [first, second, source], axis=1)
    net.width = 10 + width


def apart(net: Network) -> None:
    net.conv(12)
    sizes = net.constant(np.array([5, 7], np.int64))
    first, second = net.add("Split", [net.here, sizes], 2, axis=1)
    net.width = 5
    one = net.conv(6, source=first)
    net.width = 7
    other = net.conv(6, source=second)
    net.add("Mul", [one, other])


def squeezed(net: Network) -> None:
    """Squeeze and excitation."""
    source, width = net.here, net.width
    net.add("GlobalAveragePool", [source])
    net.conv(4, kernel=1)
    net.add("Relu", [net.here])
    net.conv(width, kernel=1)
    net.add("HardSigmoid", [net.here])
    net.add("Mul", [source, net.here])


def transposed(net: Network) -> None:
    weight = net.normal(net.width, 6, 2, 2)
    net.add("ConvTranspose", [net.here, weight, net.normal(6)], strides=[2, 2])
    net.width = 6
    net.add("MaxPool", [net.here], kernel_shape=[2, 2], strides=[2, 2])


def channels_last(net: Network) -> None:
    net.conv(6)
    net.add("Transpose", [net.here], perm=[0, 2, 3, 1])
    net.add("MatMul", [net.here, net.normal(6, 9)])
    net.add("Add", [net.here, net.normal(9)])
    net.add("Tanh", [net.here])
    net.add("Transpose", [net.here], perm=[0, 3, 1, 2])
    net.width = 9


def scaled(net: Network) -> None:
    net.conv(8, kernel=1)
    net.add("Div", [net.here, net.constant((net.random.random((8, 1, 1)) + 1).astype(np.float32))])
    net.add("Sub", [net.here, net.normal(1, 8, 1, 1)])


BLOCKS: dict[str, Callable[[Network], None]] = {
    block.__name__: block
    for block in (
        plain, normalised, residual, depthwise, grouped, beside, apart, squeezed, transposed, channels_last, scaled
    )
}  # fmt: skip


def network(blocks: list[str], seed: int) -> onnx.ModelProto:
    """Return a network of a first convolution, the blocks named, and a classifier."""
    net = Network(seed)
    net.conv(8)
    net.add("Relu", [net.here])
    for block in blocks:
        BLOCKS[block](net)
    return net.model()


def pictures(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)} for _ in range(count)]
