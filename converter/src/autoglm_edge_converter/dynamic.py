"""Matrix products on 8 bits whose activation ranges are found at each run, so that nothing is calibrated.

Only MatMul and Gemm: the runtime's integer convolution with dynamic ranges was measured at a quarter of the speed of
the float one. Each product becomes DynamicQuantizeLinear, MatMulInteger, Cast and Mul, which onnxruntime fuses.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.inspection import WeightedNode, weighted_nodes
from autoglm_edge_converter.saturation import paired_peaks
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.weights_only import round_to_int8


def dynamic_products(proto: onnx.ModelProto, chosen: Collection[str], paired: bool = False) -> onnx.ModelProto:
    """Return a copy of `proto` with the chosen products of two axes' weights on 8 bits.

    `paired`: with scales that leave room for the sum of two products (see `saturation`).
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    facts = {node.name: node for node in weighted_nodes(graph) if node.name in chosen}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    rewritten: list[onnx.NodeProto] = []
    done: dict[str, list[str]] = {}
    for node in graph.node:
        found = facts.get(node.name)
        if found is None or not is_plain_product(node, found):
            rewritten.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        matrix = weights[found.weight].T if _transposed(node) else weights[found.weight]
        peaks = paired_peaks(node, weights[found.weight]) if paired else None
        rewritten.extend(_product(graph, node, round_to_int8(matrix, 1, peaks), done))
    del graph.node[:]
    graph.node.extend(rewritten)
    _drop_unread(graph)
    return model


def is_plain_product(node: onnx.NodeProto, facts: WeightedNode) -> bool:
    """Tell whether a node is x W or x W + b with W of two axes."""
    if facts.operator not in ("MatMul", "Gemm") or len(facts.weight_shape) != 2:
        return False
    plain = {"alpha": 1.0, "beta": 1.0}
    return all(
        attribute.name == "transB" or (attribute.name in plain and attribute.f == 1.0) or not attribute.i
        for attribute in node.attribute
    )


def _transposed(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _product(
    graph: onnx.GraphProto, node: onnx.NodeProto, matrix: tuple[Array, Array], done: dict[str, list[str]]
) -> list[onnx.NodeProto]:
    make, name, source = onnx.helper.make_node, node.name, node.input[0]
    nodes: list[onnx.NodeProto] = []
    if source not in done:
        done[source] = [f"{source}_{part}" for part in ("dynamic", "dynamic_scale", "dynamic_zero")]
        nodes.append(make("DynamicQuantizeLinear", [source], done[source], name=f"{name}_range"))
    values, scale, zero = done[source]
    rounded, scales = matrix
    for part, array in (("int8", rounded), ("scale", scales), ("zero", np.zeros(scales.shape, np.int8))):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), f"{name}_{part}"))
    bias = [entry for entry in node.input[2:] if entry]
    last = f"{name}_product" if bias else node.output[0]
    inputs = [values, f"{name}_int8", zero, f"{name}_zero"]
    nodes += [
        make("MatMulInteger", inputs, [f"{name}_sum"], name=f"{name}_integer"),
        make("Cast", [f"{name}_sum"], [f"{name}_cast"], name=f"{name}_cast", to=onnx.TensorProto.FLOAT),
        make("Mul", [scale, f"{name}_scale"], [f"{name}_scales"], name=f"{name}_scales"),
        make("Mul", [f"{name}_cast", f"{name}_scales"], [last], name=f"{name}_scaled"),
    ]
    if bias:
        nodes.append(make("Add", [last, bias[0]], list(node.output), name=f"{name}_bias"))
    return nodes


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in [entry for entry in graph.initializer if entry.name not in read]:
        graph.initializer.remove(tensor)
