"""Layers that mix channels: convolutions and matrix products. They end the channels they read and make new ones."""

from __future__ import annotations

import numpy as np
import onnx

from autoglm_edge_converter.pruning.channels import Labels, Track
from autoglm_edge_converter.pruning.graph import integer, name_of
from autoglm_edge_converter.pruning.tracer import Layer, Resize, Tracer, Unproven


def convolution(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Conv, with any number of groups: [N,C,...] by [O,C/groups,...]."""
    shape = _weight_shape(tracer, node)
    groups = integer(node, "group", 1)
    read = _read(tracer, node, 1, shape[1] * groups)
    _check_bias(tracer, node)
    if groups > 1 and shape[1] == 1:
        _depthwise(tracer, node, read, shape, groups)
        return
    made = tracer.channels.fresh(shape[0], name_of(node))
    axes = {0: made}
    if groups > 1:
        _tie_groups(tracer, made, groups)
        if read is not None:
            _tie_groups(tracer, read, groups)
    if read is not None:
        axes[1] = read[: shape[1]]
    _record(tracer, node, axes, Layer(*_names(node), shape, read, made, groups, 0), Track(1, len(shape), made))


def _depthwise(tracer: Tracer, node: onnx.NodeProto, read: Labels | None, shape: tuple[int, ...], groups: int) -> None:
    """Each channel is filtered by itself, so what comes out goes when what goes in goes."""
    if read is None:
        raise Unproven("it filters channels that cannot be pruned one by one")
    made = np.repeat(read, shape[0] // groups)
    tracer.cut(node.input[1], {0: made})
    _record_bias(tracer, node, made)
    tracer.resizes.append(Resize(node.output[0], "group", (read,)))
    tracer.layers.append(Layer(*_names(node), shape, None, made, groups, 0))
    tracer.follow(node.output[0], Track(1, len(shape), made))


def transposed(tracer: Tracer, node: onnx.NodeProto) -> None:
    """ConvTranspose without groups: [N,C,...] by [C,O,...]."""
    shape = _weight_shape(tracer, node)
    if integer(node, "group", 1) != 1:
        raise Unproven("transposed convolutions with groups are not followed")
    read = _read(tracer, node, 1, shape[0])
    _check_bias(tracer, node)
    made = tracer.channels.fresh(shape[1], name_of(node))
    axes = {1: made} if read is None else {0: read, 1: made}
    _record(tracer, node, axes, Layer(*_names(node), shape, read, made, 1, 1), Track(1, len(shape), made))


def gemm(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Gemm with a constant matrix, transposed or not."""
    shape = _weight_shape(tracer, node)
    if integer(node, "transA", 0):
        raise Unproven("it transposes what it reads")
    rows, columns = (1, 0) if integer(node, "transB", 0) else (0, 1)
    read = _read(tracer, node, 1, shape[rows])
    _check_bias(tracer, node)
    made = tracer.channels.fresh(shape[columns], name_of(node))
    axes = {columns: made} if read is None else {rows: read, columns: made}
    _record(tracer, node, axes, Layer(*_names(node), shape, read, made, 1, columns), Track(1, 2, made))


def product(tracer: Tracer, node: onnx.NodeProto) -> None:
    """MatMul of an activation by a constant matrix of two axes; channels are on the last axis."""
    if not tracer.facts.is_constant(node.input[1]):
        raise Unproven("a product of two computed tensors mixes channels")
    shape = _weight_shape(tracer, node)
    rank = tracer.rank(node.input[0])
    if len(shape) != 2 or rank < 2:
        raise Unproven("only matrices of two axes are followed")
    read = _read(tracer, node, rank - 1, shape[0])
    made = tracer.channels.fresh(shape[1], name_of(node))
    axes = {1: made} if read is None else {0: read, 1: made}
    _record(tracer, node, axes, Layer(*_names(node), shape, read, made, 1, 1), Track(rank - 1, rank, made))


def _names(node: onnx.NodeProto) -> tuple[str, str, str, str]:
    return node.output[0], name_of(node), node.op_type, node.input[1]


def _weight_shape(tracer: Tracer, node: onnx.NodeProto) -> tuple[int, ...]:
    weight = tracer.facts.constant(node.input[1])
    if weight is None or weight.dtype != np.float32:
        raise Unproven("its weight is no float32 constant")
    return tuple(weight.shape)


def _read(tracer: Tracer, node: onnx.NodeProto, axis: int, channels: int) -> Labels | None:
    track = tracer.track(node.input[0])
    if track is None:
        return None
    if track.axis != axis or len(track.labels) != channels:
        raise Unproven("it reads channels along another axis")
    return track.labels


def _check_bias(tracer: Tracer, node: onnx.NodeProto) -> None:
    if len(node.input) > 2 and node.input[2] and not tracer.facts.is_constant(node.input[2]):
        raise Unproven("its bias is computed")


def _tie_groups(tracer: Tracer, labels: Labels, groups: int) -> None:
    """Every group must keep the same number of channels: one goes from each."""
    parts = labels.reshape(groups, -1)
    for part in parts[1:]:
        tracer.channels.tie(parts[0], part)


def _record(tracer: Tracer, node: onnx.NodeProto, axes: dict[int, Labels], layer: Layer, track: Track) -> None:
    tracer.cut(node.input[1], axes)
    _record_bias(tracer, node, layer.outputs)
    tracer.layers.append(layer)
    tracer.follow(node.output[0], track)


def _record_bias(tracer: Tracer, node: onnx.NodeProto, made: Labels) -> None:
    if len(node.input) < 3 or not node.input[2]:
        return
    shape = tracer.facts.shape(node.input[2]) or ()
    wide = bool(shape) and shape[-1] == len(made)
    tracer.cut(node.input[2], {len(shape) - 1: made} if wide else {})
    if not wide and len(made) > 1 and any(axis != 1 for axis in shape):
        tracer.channels.freeze(made, f"the bias of {name_of(node)} has another shape")


LAYERS = {"Conv": convolution, "ConvTranspose": transposed, "Gemm": gemm, "MatMul": product}
"""By operator."""
