"""Taking channels out of a graph: weights are cut, and numbers of channels that are written in nodes counted again.

`cut` makes the smaller graph, `mask` the graph of the old size in which nothing reads the channels any more; both
answer the same, which is how the tests know that a cut is exact.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.pruning.channels import Labels
from autoglm_edge_converter.pruning.groups import ChannelMap
from autoglm_edge_converter.pruning.tracer import Layer, Resize
from autoglm_edge_converter.source import opset_of
from autoglm_edge_converter.tensors import Array

Kept = npt.NDArray[np.bool_]


def kept(labels: Labels, removed: Collection[int]) -> Kept:
    """Tell which channels stay, bool [channels]."""
    return ~np.isin(labels, np.fromiter(removed, dtype=np.int64, count=len(removed)))


def cut(proto: onnx.ModelProto, channels: ChannelMap, removed: Collection[int]) -> onnx.ModelProto:
    """Return the graph without the classes given. `proto` is the one that was mapped, and is not changed.

    Raises ValueError should the result not be a valid graph although `proto` is; many real graphs are not quite.
    """
    model = _copy(proto)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for entry in channels.cuts:
        keep = kept(entry.labels, removed)
        if not keep.all():
            tensor = tensors[entry.tensor]
            _replace(tensor, np.compress(keep, numpy_helper.to_array(tensor), axis=entry.axis))
    nodes = {node.output[0]: node for node in model.graph.node}
    for resize in channels.resizes:
        if any(not kept(part, removed).all() for part in resize.parts):
            _count_again(model, nodes[resize.node], resize, [int(kept(p, removed).sum()) for p in resize.parts])
    problem = _problem_of(model)
    if problem is not None and _problem_of(proto) is None:
        raise ValueError(f"the pruned graph is not valid: {problem}")
    return model


def _problem_of(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        return str(error).splitlines()[0]
    return None


def mask(proto: onnx.ModelProto, channels: ChannelMap, removed: Collection[int]) -> onnx.ModelProto:
    """Return the graph of the same size in which no layer reads the classes given. `proto` is not changed."""
    model = _copy(proto)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in channels.layers:
        if layer.inputs is None:
            continue
        weight = numpy_helper.to_array(tensors[layer.weight]).copy()
        view = channels_first(layer, weight)
        keep = kept(layer.inputs, removed)
        for part, labels in enumerate(np.split(keep, layer.groups)):
            size = view.shape[1] // layer.groups
            view[~labels, part * size : (part + 1) * size] = 0
        _replace(tensors[layer.weight], weight)
    return model


def channels_first(layer: Layer, weight: Array) -> Array:
    """Return a view of a layer's weight as [channels read, channels made, ...]; a group's own channels when grouped."""
    return weight.swapaxes(0, 1) if layer.made_axis == 0 else weight


def _count_again(model: onnx.ModelProto, node: onnx.NodeProto, resize: Resize, counts: list[int]) -> None:
    if resize.kind == "group":
        _set_attribute(node, "group", counts[0])
    elif resize.kind == "reshape":
        target = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
        values = numpy_helper.to_array(target).copy()
        values[resize.axis] = counts[0]
        node.input[1] = _constant(model, f"{node.output[0]}_shape", values)
    elif opset_of(model) < 13:
        _set_attribute(node, "split", counts)
    else:
        _drop_attribute(node, "num_outputs")
        name = _constant(model, f"{node.output[0]}_sizes", np.array(counts, np.int64))
        del node.input[1:]
        node.input.append(name)


def _set_attribute(node: onnx.NodeProto, name: str, value: int | list[int]) -> None:
    _drop_attribute(node, name)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    rest = [entry for entry in node.attribute if entry.name != name]
    copies = [onnx.AttributeProto.FromString(entry.SerializeToString()) for entry in rest]
    del node.attribute[:]
    node.attribute.extend(copies)


def _constant(model: onnx.ModelProto, name: str, values: Array) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _replace(tensor: onnx.TensorProto, values: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
