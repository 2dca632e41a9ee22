"""Replacing arithmetic on one-hot rows by looking rows up in a table.

`Equal(x, 0..K-1) -> Cast -> MatMul(W)` picks one row of W for each integer of x; so does `Gather`, without a tensor K
times the size. Whatever follows element by element depends on the row alone, so it is worked out for the table once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.tensors import Array

ELEMENTWISE = frozenset(
    ("Add", "Sub", "Mul", "Div", "Tanh", "Erf", "Relu", "Sigmoid", "Exp", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow")
)


def look_up_rows(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace products with one-hot rows by `Gather`; indices out of range give a row of zeros, as they do there."""
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    ranks = _ranks(proto)
    for node in list(graph.node):
        cast = made.get(node.input[0]) if node.op_type == "MatMul" and node.input[1] in constants else None
        equal = made.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
        if cast is None or equal is None or equal.op_type != "Equal":
            continue
        index = _index(equal, constants)
        weight = numpy_helper.to_array(constants[node.input[1]])
        source = made.get(index) if index else None
        while source is not None and source.op_type == "Expand":
            index, source = source.input[0], made.get(source.input[0])
        if not index or weight.ndim != 2 or ranks.get(index) is None or weight.dtype != np.float32:
            continue
        _replace_product(graph, node, index, weight)
    return proto


def _index(equal: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str | None:
    """Return the input that is compared with 0, 1, ... along the last axis."""
    for number in (0, 1):
        if equal.input[number] in constants:
            values = numpy_helper.to_array(constants[equal.input[number]])
            flat = values.reshape(-1)
            if values.ndim and values.shape[-1] == flat.size > 1 and (flat == np.arange(flat.size)).all():
                return str(equal.input[1 - number])
    return None


def _replace_product(graph: onnx.GraphProto, node: onnx.NodeProto, index: str, weight: Array) -> None:
    name, make = node.name or node.output[0], onnx.helper.make_node
    edge = np.zeros((1, weight.shape[1]), np.float32)
    for part, array in (
        ("table", np.concatenate([edge, weight, edge])),
        ("low", np.array(-1, np.int64)),
        ("high", np.array(len(weight), np.int64)),
        ("one", np.array(1, np.int64)),
        ("axis", np.array([-1], np.int64)),
    ):
        graph.initializer.append(numpy_helper.from_array(array, f"{name}_{part}"))
    nodes = [
        make("Squeeze", [index, f"{name}_axis"], [f"{name}_index"], name=f"{name}_index"),
        make("Cast", [f"{name}_index"], [f"{name}_wide"], name=f"{name}_wide", to=onnx.TensorProto.INT64),
        make("Clip", [f"{name}_wide", f"{name}_low", f"{name}_high"], [f"{name}_held"], name=f"{name}_held"),
        make("Add", [f"{name}_held", f"{name}_one"], [f"{name}_row"], name=f"{name}_row"),
        make("Gather", [f"{name}_table", f"{name}_row"], list(node.output), name=f"{name}_rows"),
    ]
    _splice(graph, node, nodes)


def _splice(graph: onnx.GraphProto, old: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node if node is not old]
    place = next(number for number, node in enumerate(graph.node) if node.output == old.output)
    del graph.node[:]
    graph.node.extend([*rest[:place], *new, *rest[place:]])


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input)
        if value.type.tensor_type.HasField("shape")
    }


def fold_tables(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Work out for the whole table what is done to each looked-up row element by element."""
    graph = proto.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for gather in [node for node in graph.node if node.op_type == "Gather"]:
        table = arrays.get(gather.input[0])
        along = next((attribute.i for attribute in gather.attribute if attribute.name == "axis"), 0)
        if table is None or table.ndim != 2 or table.dtype != np.float32 or along != 0:
            continue
        region = _region(graph, gather.output[0], arrays, table.shape[1])
        inside = {name for node in region for name in node.output}
        ends = _read_outside(graph, region, inside)
        if len(ends) != 1 or gather.output[0] in _read_elsewhere(graph, region):
            continue
        name = f"{ends[0]}_table"
        graph.initializer.append(numpy_helper.from_array(_worked_out(proto, gather, region, ends[0], table), name))
        gather.input[0], gather.output[0] = name, ends[0]
        for node in region:
            graph.node.remove(node)
    return proto


def _region(graph: onnx.GraphProto, start: str, arrays: dict[str, Array], columns: int) -> list[onnx.NodeProto]:
    """Return the nodes that do the same to every row, each reading the start, one another, and constants."""
    inside = {start}
    found = []
    for node in graph.node:
        others = [name for name in node.input if name not in inside]
        if node.op_type not in ELEMENTWISE or len(others) == len(node.input):
            continue
        if all(name in arrays and _is_row(arrays[name], columns) for name in others):
            inside.update(node.output)
            found.append(node)
    return found


def _is_row(array: Array, columns: int) -> bool:
    return array.size == 1 or (array.size == columns and array.shape[-1] == columns)


def _read_outside(graph: onnx.GraphProto, region: Sequence[onnx.NodeProto], inside: set[str]) -> list[str]:
    own = {node.output[0] for node in region}
    read = {name for node in graph.node if node.output[0] not in own for name in node.input}
    read.update(value.name for value in graph.output)
    return sorted(inside & read)


def _read_elsewhere(graph: onnx.GraphProto, region: Sequence[onnx.NodeProto]) -> set[str]:
    own = {node.output[0] for node in region}
    read = {name for node in graph.node if node.output[0] not in own for name in node.input}
    return read | {value.name for value in graph.output}


def _worked_out(
    proto: onnx.ModelProto, gather: onnx.NodeProto, region: Sequence[onnx.NodeProto], end: str, table: Array
) -> Array:
    names = {name for node in region for name in node.input}
    graph = onnx.helper.make_graph(
        region,
        "table",
        [onnx.helper.make_tensor_value_info(gather.output[0], onnx.TensorProto.FLOAT, table.shape)],
        [onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None)],
        [tensor for tensor in proto.graph.initializer if tensor.name in names],
    )
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    (found,) = open_session(model.SerializeToString()).run([end], {gather.output[0]: table})
    return np.asarray(found, np.float32).reshape(table.shape)
