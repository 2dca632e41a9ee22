"""Models with weights in half or double precision, computed in single precision.

Half precision is what models are exported in for GPUs. CPUs compute it by going to single precision and back at every
operator, and double precision at half the speed; quantizers know neither. Single precision holds each number of the
halves, and what the sums lose is what the original's own rounding made.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

SINGLE = TensorProto.FLOAT
OTHERS: Mapping[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
"""The precisions that are brought to single, and what they are called."""

_KINDS = ("to", "dtype", "output_dtype")
"""The attributes that name the type of what an operator makes."""

_MOST_BYTES = 2**31 - 1


def other_precision(proto: onnx.ModelProto) -> int | None:
    """Return the type that most of the real weights have where that is not float32, None where it is."""
    counts: Counter[int] = Counter()
    for graph in _graphs(proto.graph):
        for tensor in _constants(graph):
            if tensor.data_type == SINGLE or tensor.data_type in OTHERS:
                counts[tensor.data_type] += math.prod(tensor.dims)
    kind = counts.most_common(1)[0][0] if counts else SINGLE
    return None if kind == SINGLE else kind


def in_single_precision(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """Return a copy that computes in float32 what is computed in `kind`; its inputs and outputs stay what they were.

    Raises ValueError where that cannot be: functions of its own, constants that float32 does not hold, more than 2 GiB.
    """
    if proto.functions:
        raise ValueError("it has functions of its own")
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for graph in _graphs(model.graph):
        if graph.sparse_initializer:
            raise ValueError("it has sparse weights")
        for tensor in _constants(graph):
            _widen(tensor, kind)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _KINDS and attribute.i == kind:
                    attribute.i = SINGLE
                for described in (attribute.tp, *attribute.type_protos):
                    _set_type(described, kind)
        for value in graph.value_info:
            _set_type(value.type, kind)
    for graph in list(_graphs(model.graph))[1:]:
        for value in (*graph.input, *graph.output):
            _set_type(value.type, kind)
    _keep_interface(model.graph, kind)
    if model.ByteSize() > _MOST_BYTES:
        raise ValueError("it would have more than 2 GiB")
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Give a graph and those inside its control flow, itself first."""
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


def _widen(tensor: onnx.TensorProto, kind: int) -> None:
    if tensor.data_type != kind:
        return
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.array_equal(np.isfinite(single), np.isfinite(values.astype(np.float64))):
        raise ValueError(f"constant {tensor.name!r} holds numbers that float32 does not")
    tensor.CopyFrom(numpy_helper.from_array(single, tensor.name))


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


def _keep_interface(graph: onnx.GraphProto, kind: int) -> None:
    """Convert what comes in and goes out, under the names that callers know."""
    constants = {tensor.name for tensor in graph.initializer}
    taken = {name for inner in _graphs(graph) for node in inner.node for name in (*node.input, *node.output)}

    def free(name: str) -> str:
        fresh = next(
            text for text in map(f"{name}_single{{}}".format, ("", *range(len(taken) + 1))) if text not in taken
        )
        taken.add(fresh)
        return fresh

    entries = [value.name for value in graph.input if _is(value, kind) and value.name not in constants]
    exits = [value.name for value in graph.output if _is(value, kind)]
    names = {name: free(name) for name in dict.fromkeys((*entries, *exits))}
    for value in graph.input:
        if value.name in constants:
            _set_type(value.type, kind)
    _rename(graph, names)
    make = onnx.helper.make_node
    casts = [make("Cast", [name], [names[name]], f"{names[name]}_in", to=SINGLE) for name in entries]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    back = [make("Cast", [names[name]], [name], f"{names[name]}_out", to=kind) for name in exits if name not in entries]
    del graph.node[:]
    graph.node.extend([*casts, *nodes, *back])


def _is(value: onnx.ValueInfoProto, kind: int) -> bool:
    return bool(value.type.tensor_type.elem_type == kind)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values wherever they are made or read, but not as the inputs and outputs of the outermost graph."""
    for inner in _graphs(graph):
        for node in inner.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for tensor in inner.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        ends = inner.value_info if inner is graph else (*inner.value_info, *inner.output)
        for value in ends:
            value.name = names.get(value.name, value.name)
