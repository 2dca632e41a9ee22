"""Rewrites of a graph that must not change what it answers, one function each.

A pass takes a model of its own and returns the rewritten one; it may raise anything, its caller (`optimise`) drops it
then. Names of the graph's inputs and outputs always stay: they are the model's interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import onnx
import onnxslim

from autoglm_edge_converter.fusions import fuse_gelu, pool_means
from autoglm_edge_converter.lookups import fold_tables, look_up_rows
from autoglm_edge_converter.opsets import IR_OF_OPSET, inline_functions, lower_opset, oldest_format, raise_opset

Pass = Callable[[onnx.ModelProto], onnx.ModelProto]
"""May change the model it is given."""

OPSET = 17
"""What older graphs are upgraded to: per-channel weights need 13, LayerNormalization 17; onnxruntime reads it since
1.12."""


def own_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take constants out of the inputs, where old files list them too: the runtime folds nothing that could be fed."""
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in constants]:
        graph.input.remove(value)
    proto.ir_version = max(proto.ir_version, IR_OF_OPSET[1])
    return proto


def simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, drop dead and repeated nodes, fuse what onnxslim knows to fuse."""
    return _slimmed(proto, [])


def simplify_gently(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and no more: onnxslim believes the shapes that a file states, which may be wrong."""
    return _slimmed(proto, ["dead_node_elimination", "graph_fusion"])


def _slimmed(proto: onnx.ModelProto, without: list[str]) -> onnx.ModelProto:
    """Leave the inputs as they were: onnxslim takes those out that nothing reads, which callers feed all the same."""
    inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in proto.graph.input]
    slim: onnx.ModelProto = onnxslim.slim(proto, skip_optimizations=without)
    del slim.graph.input[:]
    slim.graph.input.extend(inputs)
    return slim


def lift_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Turn `Constant` nodes into initializers, which is where the quantizer looks for weights."""
    graph = proto.graph
    for node in list(graph.node):
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            graph.node.remove(node)
    return proto


def drop_unread(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take out nodes whose results nobody reads, and constants likewise."""
    graph = proto.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return proto
    read = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)
    _drop_unread_constants(graph)
    return proto


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node after those it reads from, as the standard asks; equals stay in their order."""
    waiting = list(graph.node)
    made = {name for node in waiting for name in node.output if name}
    ready: set[str] = set()
    ordered: list[onnx.NodeProto] = []
    while waiting:
        left = []
        for node in waiting:
            if made.intersection(_read_by(node)) <= ready:
                ordered.append(onnx.NodeProto.FromString(node.SerializeToString()))
                ready.update(node.output)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise ValueError("the graph has a cycle")
        waiting = left
    del graph.node[:]
    graph.node.extend(ordered)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return what a node reads, the graphs inside it included."""
    inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner += [graph for attribute in node.attribute for graph in attribute.graphs]
    return set(node.input).union(*(_read_by(entry) for graph in inner for entry in graph.node))


def fuse_bias(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Join a product of two matrices and the constant row added to it into one Gemm.

    The runtime does so itself, but on a quantized graph it then misses its 8-bit kernel.
    """
    graph = proto.graph
    ranks = _ranks(proto)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    products = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "MatMul" and ranks.get(node.input[0]) == 2 and len(shapes.get(node.input[1], ())) == 2
    }
    for node in list(graph.node):
        if node.op_type != "Add" or len(node.input) != 2:
            continue
        for name, bias in (tuple(node.input), tuple(node.input)[::-1]):
            product = products.get(name)
            if product is None or readers[name] != 1 or not _is_row(shapes.get(bias), shapes[product.input[1]][1]):
                continue
            row = _as_vector(graph, bias)
            node.CopyFrom(onnx.helper.make_node("Gemm", [*product.input, row], list(node.output), node.name))
            graph.node.remove(product)
            break
    return proto


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }


def _is_row(shape: tuple[int, ...] | None, columns: int) -> bool:
    return shape in ((columns,), (1, columns))


def _as_vector(graph: onnx.GraphProto, name: str) -> str:
    """The 8-bit Gemm takes its bias with one axis only."""
    tensor = next(entry for entry in graph.initializer if entry.name == name)
    if len(tensor.dims) == 1:
        return name
    vector = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).reshape(-1), f"{name}_row")
    if all(entry.name != vector.name for entry in graph.initializer):
        graph.initializer.append(vector)
    return vector.name


def shorten_names(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give every inner tensor a short name (`t12`) and every node its operator and number (`Conv_12`).

    Long names cost bytes, and the quantizer's suffixes can make two of them collide. Graphs with control flow keep
    their names: inner graphs refer to outer tensors by name.
    """
    graph = proto.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        _name_nodes(graph)
        return proto
    kept = {value.name for value in (*graph.input, *graph.output)}
    fresh = (name for name in _numbered("t") if name not in kept)
    renamed: dict[str, str] = {}
    _drop_unread_constants(graph)
    for tensor in graph.initializer:
        if tensor.name not in kept:
            tensor.name = renamed.setdefault(tensor.name, next(fresh))
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name and name not in kept:
                node.output[number] = renamed.setdefault(name, next(fresh))
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = renamed.get(name, name)
    del graph.value_info[:]
    _name_nodes(graph)
    return proto


def _drop_unread_constants(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)


def _numbered(prefix: str) -> Iterator[str]:
    number = 0
    while True:
        yield f"{prefix}{number}"
        number += 1


def _name_nodes(graph: onnx.GraphProto) -> None:
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"


def strip_metadata(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take out what no runtime needs: doc strings, metadata, the shapes of inner tensors, the producer."""
    proto.doc_string = ""
    proto.producer_version = ""
    proto.producer_name = "autoglm-edge"
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    proto.graph.doc_string = ""
    proto.graph.name = "graph"
    for item in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    return proto


INSTEAD: dict[str, tuple[Pass, ...]] = {"simplify": (simplify_gently, lift_constants)}
"""What is tried, in this order, where a pass itself cannot be kept."""


def passes_for(newest_opset: int) -> dict[str, Pass]:
    """Return the passes by name, in the order in which they are made, for runtimes that read this operator set."""
    return {
        "inline-functions": inline_functions,
        "own-constants": own_constants,
        "lower-opset": partial(lower_opset, newest=newest_opset),
        "upgrade-opset": partial(raise_opset, wanted=min(OPSET, newest_opset)),
        "oldest-format": oldest_format,
        "simplify": simplify,
        "look-up-rows": look_up_rows,
        "fold-tables": fold_tables,
        "pool-means": pool_means,
        "fuse-gelu": fuse_gelu,
        "drop-unread": drop_unread,
        "fuse-bias": fuse_bias,
        "shorten-names": shorten_names,
        "strip-metadata": strip_metadata,
    }


PASSES = passes_for(onnx.defs.onnx_opset_version())
"""Those where no target was named."""
