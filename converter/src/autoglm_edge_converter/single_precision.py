"""Models with weights in half or double precision, rewritten to compute in single precision.

Half precision is what models are exported in for GPUs. CPUs compute it by going to single precision and back at every
operator, and double precision at half the speed; quantizers know neither. Whether the rewritten model is the same one
is found out by running both (see `given_precision`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from autoglm_edge_converter.opsets import inline_functions
from autoglm_edge_converter.tensors import Array

SINGLE = TensorProto.FLOAT
PRECISIONS: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
"""What types of real numbers are called."""

_NAMING_A_TYPE = ("to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision")
"""The attributes of standard operators that name the type of what is made, or computed with."""

_MOST_BYTES = 2**31 - 1 - 64 * 1024 * 1024
"""What constants may take, so that the whole stays below the 2 GiB that a protobuf message may have."""


def precision_of(proto: onnx.ModelProto) -> int:
    """Return the type that most of the real weights have; float32 where there are none, or as many of it."""
    counts: Counter[int] = Counter({SINGLE: 0})
    for graph in _graphs(proto.graph):
        for tensor in _constants(graph):
            if tensor.data_type in PRECISIONS:
                counts[tensor.data_type] += math.prod(tensor.dims)
        counts[SINGLE] += sum(len(attribute.floats) for node in graph.node for attribute in node.attribute)
    return max(counts, key=lambda kind: (counts[kind], kind == SINGLE))


def in_single_precision(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """Return a copy that computes in float32 what is computed in `kind`; its inputs and outputs stay what they were.

    Raises ValueError where that cannot be written down, with the reason.
    """
    if sum(4 * math.prod(tensor.dims) for graph in _graphs(proto.graph) for tensor in _constants(graph)) > _MOST_BYTES:
        raise ValueError("in float32 it would have more than 2 GiB")
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    if model.functions:
        model = inline_functions(model)
    outermost, *inner = _graphs(model.graph)
    for graph in (outermost, *inner):
        _set_types_inside(graph, kind)
    for graph in inner:
        for value in (*graph.input, *graph.output):
            _set_type(value.type, kind)
    _keep_interface(outermost, inner, kind)
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Give a graph, and after it those inside its control flow."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(inner)


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _set_types_inside(graph: onnx.GraphProto, kind: int) -> None:
    """Widen the constants of a graph, and say of what is computed between its inputs and outputs that it is single."""
    if graph.sparse_initializer:
        raise ValueError("it has sparse weights")
    for tensor in _constants(graph):
        if tensor.data_type == kind:
            tensor.CopyFrom(numpy_helper.from_array(_widened(tensor), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise ValueError("it has sparse weights")
            if attribute.name in _NAMING_A_TYPE and attribute.i == kind:
                attribute.i = SINGLE
            for described in (attribute.tp, *attribute.type_protos):
                _set_type(described, kind)
    for value in graph.value_info:
        _set_type(value.type, kind)


def _widened(tensor: onnx.TensorProto) -> Array:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32)
    if single.size == 1 and np.isinf(single).any() and np.isfinite(values).all():
        limits = np.finfo(np.float32)
        return np.asarray(np.clip(values, limits.min, limits.max), np.float32)  # of a Clip, or of a mask
    if np.isfinite(single).sum() != np.isfinite(values).sum() or np.count_nonzero(single) != np.count_nonzero(values):
        raise ValueError(f"constant {tensor.name!r} holds numbers that float32 does not")
    return np.asarray(single, np.float32)


def _set_type(described: onnx.TypeProto, kind: int) -> None:
    """Set the type of what a tensor holds, also of one in a sequence, an optional value or a map."""
    found = described.WhichOneof("value")
    if found in ("tensor_type", "sparse_tensor_type"):
        if getattr(described, found).elem_type == kind:
            getattr(described, found).elem_type = SINGLE
    elif found in ("sequence_type", "optional_type"):
        _set_type(getattr(described, found).elem_type, kind)
    elif found == "map_type":
        _set_type(described.map_type.value_type, kind)


def _keep_interface(graph: onnx.GraphProto, inner: list[onnx.GraphProto], kind: int) -> None:
    """Convert what comes in and goes out, under the names that callers know."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {value.name for value in graph.input}
    if any(not value.type.tensor_type.elem_type for value in graph.output):
        raise ValueError("it does not say what type an output has")
    entries = [value.name for value in graph.input if _is(value, kind) and value.name not in constants]
    exits = list(dict.fromkeys(value.name for value in graph.output if _is(value, kind)))
    if inputs.intersection(exits):
        raise ValueError("an input is an output, too")
    for value in graph.input:
        if value.name in constants:
            _set_type(value.type, kind)
    taken = {name for each in (graph, *inner) for name in (*_made_in(each), *_read_in(each))}
    names = {name: _free(f"{name}_single", taken) for name in (*entries, *exits)}
    if any(not _made_in(each).isdisjoint(names) for each in inner):
        raise ValueError("a name inside its control flow hides an input or output")
    _rename(graph, inner, names)
    make = onnx.helper.make_node
    casts = [make("Cast", [name], [names[name]], f"{names[name]}_in", to=SINGLE) for name in entries]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    back = [make("Cast", [names[name]], [name], f"{names[name]}_out", to=kind) for name in exits]
    del graph.node[:]
    graph.node.extend([*casts, *nodes, *back])


def _is(value: onnx.ValueInfoProto, kind: int) -> bool:
    return bool(value.type.tensor_type.elem_type == kind)


def _made_in(graph: onnx.GraphProto) -> set[str]:
    made = {name for node in graph.node for name in node.output}
    return made.union((value.name for value in graph.input), (tensor.name for tensor in graph.initializer))


def _read_in(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.input}.union(value.name for value in graph.output)


def _free(name: str, taken: set[str]) -> str:
    fresh = next(text for number in range(len(taken) + 1) if (text := f"{name}{number or ''}") not in taken)
    taken.add(fresh)
    return fresh


def _rename(graph: onnx.GraphProto, inner: list[onnx.GraphProto], names: Mapping[str, str]) -> None:
    """Rename values wherever they are made or read, but not as the inputs and outputs of the outermost graph."""
    for each in (graph, *inner):
        for node in each.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for tensor in each.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for value in each.value_info:
            value.name = names.get(value.name, value.name)
    for each in inner:
        for value in each.output:
            value.name = names.get(value.name, value.name)
