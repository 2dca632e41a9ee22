"""Operators that treat every channel by itself: activations, element-wise arithmetic, pooling, normalisation."""

from __future__ import annotations

import onnx

from autoglm_edge_converter.pruning.channels import Labels, Track
from autoglm_edge_converter.pruning.graph import integer
from autoglm_edge_converter.pruning.tracer import Tracer, Unproven

ACTIVATIONS = (
    "Abs",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
)
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu")
POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")


def only(tracer: Tracer, node: onnx.NodeProto) -> Track:
    """Return the track of a node's first input, which must be the only one with channels. Raises Unproven."""
    track = tracer.track(node.input[0])
    if track is None or any(tracer.track(name) for name in node.input[1:]):
        raise Unproven("its parameters are computed from channels")
    return track


def activation(tracer: Tracer, node: onnx.NodeProto) -> None:
    """One number in, one out."""
    if len(node.output) > 1:
        raise Unproven("it also gives a mask")
    tracer.follow(node.output[0], only(tracer, node))
    for name in node.input[1:]:
        if tracer.facts.is_constant(name):
            tracer.cut(name, {})


def arithmetic(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Element by element with broadcasting: channels that meet are tied, constants along the channels are cut."""
    rank = max(tracer.rank(name) for name in node.input)
    tracks = [track for track in map(tracer.track, node.input) if track is not None]
    place = tracks[0].from_end
    widest = max(tracks, key=lambda track: len(track.labels))
    if any(track.from_end != place or len(track.labels) not in (1, len(widest.labels)) for track in tracks):
        raise Unproven("it joins channels that lie along different axes")
    for name in node.input:
        if tracer.track(name) is None and _extent(tracer, name, place) not in (1, len(widest.labels)):
            raise Unproven("it joins channels with something of an unknown width")
        if tracer.track(name) is None and not tracer.facts.is_constant(name) and _extent(tracer, name, place) != 1:
            raise Unproven("it joins channels with others that cannot be pruned")
    _join(tracer, node, widest.labels, place)
    tracer.follow(node.output[0], Track(rank + place, rank, widest.labels))


def _join(tracer: Tracer, node: onnx.NodeProto, labels: Labels, place: int) -> None:
    for name in node.input:
        track = tracer.track(name)
        if track is not None and len(track.labels) == len(labels):
            tracer.channels.tie(labels, track.labels)
        elif track is not None:
            tracer.freeze(name, f"{name!r} is spread over other channels")
        elif tracer.facts.is_constant(name):
            wide = len(labels) > 1 and _extent(tracer, name, place) == len(labels)
            tracer.cut(name, {tracer.rank(name) + place: labels} if wide else {})
    if len(labels) == 1:
        tracer.channels.freeze(labels, "it is the only channel")


def _extent(tracer: Tracer, name: str, place: int) -> int | None:
    """How wide an operand is where the channels are; 1 where it has no such axis."""
    shape = tracer.facts.shape(name)
    if shape is None:
        return None
    return shape[place] if len(shape) >= -place else 1


def pool(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Pooling over the axes behind the channels."""
    track = only(tracer, node)
    if track.axis != 1 or len(node.output) > 1:
        raise Unproven("it pools over the channels")
    tracer.follow(node.output[0], track)


def normalisation(tracer: Tracer, node: onnx.NodeProto) -> None:
    """BatchNormalization and InstanceNormalization: statistics of each channel by itself."""
    track = only(tracer, node)
    if track.axis != 1 or len(node.output) > 1 or not all(map(tracer.facts.is_constant, node.input[1:])):
        raise Unproven("it is still training, or normalises another axis")
    for name in node.input[1:]:
        tracer.cut(name, {0: track.labels})
    tracer.follow(node.output[0], track)


def across(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Softmax and LayerNormalization mix what lies along their axis: followed only where that is not the channels'."""
    track = only(tracer, node)
    axis = integer(node, "axis", -1) % track.rank
    layer_norm = node.op_type == "LayerNormalization"
    mixes = track.axis >= axis if layer_norm or tracer.facts.opset < 13 else track.axis == axis
    if mixes or (tracer.facts.opset < 13 and not layer_norm):
        raise Unproven("taking a channel out would change the others")
    if layer_norm:
        for name in node.input[1:]:
            tracer.cut(name, {})
    tracer.follow(node.output[0], track)


CARRIERS = (
    dict.fromkeys(ACTIVATIONS, activation)
    | dict.fromkeys(ARITHMETIC, arithmetic)
    | dict.fromkeys(POOLS, pool)
    | dict.fromkeys(("BatchNormalization", "InstanceNormalization"), normalisation)
    | dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization"), across)
)
"""By operator."""
