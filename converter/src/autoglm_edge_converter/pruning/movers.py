"""Operators that move channels: to another axis, beside others, apart, or into fewer or more axes."""

from __future__ import annotations

import math

import numpy as np
import onnx

from autoglm_edge_converter.pruning.carriers import only
from autoglm_edge_converter.pruning.channels import Labels, Track
from autoglm_edge_converter.pruning.graph import Shape, integer, integers, name_of
from autoglm_edge_converter.pruning.tracer import Resize, Tracer, Unproven


def transpose(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Transpose moves the axis of the channels."""
    track = only(tracer, node)
    order = integers(node, "perm") or tuple(range(track.rank))[::-1]
    tracer.follow(node.output[0], Track(order.index(track.axis), track.rank, track.labels))


def squeeze(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Squeeze takes axes out."""
    track = only(tracer, node)
    axes = tracer.listed(node, "axes", 1)
    if axes is None:
        raise Unproven("it does not say which axes it takes out")
    gone = {axis % track.rank for axis in axes}
    if track.axis in gone:
        raise Unproven("it takes the axis of the channels out")
    axis = track.axis - sum(one < track.axis for one in gone)
    tracer.follow(node.output[0], Track(axis, track.rank - len(gone), track.labels))


def unsqueeze(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Unsqueeze puts axes in."""
    track = only(tracer, node)
    axes = tracer.listed(node, "axes", 1) or ()
    rank = track.rank + len(axes)
    free = [axis for axis in range(rank) if axis not in {one % rank for one in axes}]
    tracer.follow(node.output[0], Track(free[track.axis], rank, track.labels))


def reduce(tracer: Tracer, node: onnx.NodeProto) -> None:
    """ReduceMean and its kind over axes other than that of the channels."""
    track = only(tracer, node)
    axes = tracer.listed(node, "axes", 1)
    gone = {axis % track.rank for axis in axes or range(track.rank)}
    if track.axis in gone:
        raise Unproven("it reduces over the channels")
    if integer(node, "keepdims", 1):
        tracer.follow(node.output[0], track)
        return
    axis = track.axis - sum(one < track.axis for one in gone)
    tracer.follow(node.output[0], Track(axis, track.rank - len(gone), track.labels))


def concat(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Concat puts channels beside one another; along another axis it ties them."""
    tracks = [tracer.track(name) for name in node.input]
    first = next(track for track in tracks if track is not None)
    if any(track is not None and track.axis != first.axis for track in tracks):
        raise Unproven("it joins channels that lie along different axes")
    axis = integer(node, "axis", 0) % first.rank
    if axis == first.axis:
        parts = [_labels(tracer, name, axis, node) for name in node.input]
        tracer.follow(node.output[0], Track(axis, first.rank, np.concatenate(parts)))
        return
    for track in tracks:
        if track is None or len(track.labels) != len(first.labels):
            raise Unproven("it joins channels with others that cannot be pruned")
    for track in tracks:
        if track is not None:
            tracer.channels.tie(first.labels, track.labels)
    tracer.follow(node.output[0], first)


def _labels(tracer: Tracer, name: str, axis: int, node: onnx.NodeProto) -> Labels:
    track = tracer.track(name)
    if track is not None:
        return track.labels
    shape = tracer.facts.shape(name)
    width = shape[axis] if shape is not None and axis < len(shape) else None
    if width is None:
        raise Unproven(f"the width of {name!r} is not known")
    labels = tracer.channels.fresh(width, name_of(node))
    tracer.channels.freeze(labels, f"{name!r} is not made by a layer")
    return labels


def split(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Split takes channels apart; along another axis it leaves them."""
    track = only(tracer, node)
    if integer(node, "axis", 0) % track.rank != track.axis:
        for name in node.output:
            tracer.follow(name, track)
        return
    width, count = len(track.labels), len(node.output)
    each = -(-width // count)
    sizes = tracer.listed(node, "split", 1) or (*[each] * (count - 1), width - each * (count - 1))
    if sum(sizes) != width or len(sizes) != count:
        raise Unproven("its sizes do not add up")
    parts = tuple(np.split(track.labels, np.cumsum(sizes)[:-1]))
    tracer.resizes.append(Resize(node.output[0], "split", parts))
    for name, labels in zip(node.output, parts, strict=True):
        tracer.follow(name, Track(track.axis, track.rank, labels))


def cut_out(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Slice along other axes than that of the channels, of which it takes all."""
    track = only(tracer, node)
    starts, ends = (tracer.listed(node, name, place) or () for place, name in enumerate(("starts", "ends"), 1))
    axes = tracer.listed(node, "axes", 3) or tuple(range(len(starts)))
    steps = tracer.listed(node, "steps", 4) or (1,) * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        whole = start == 0 and end >= len(track.labels) and step == 1
        if axis % track.rank == track.axis and not whole:
            raise Unproven("it picks channels by number")
    tracer.follow(node.output[0], track)


def pad(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Pad around other axes than that of the channels."""
    track = only(tracer, node)
    pads = tracer.listed(node, "pads", 1) or ()
    if len(pads) != 2 * track.rank or pads[track.axis] or pads[track.axis + track.rank]:
        raise Unproven("it adds channels")
    tracer.follow(node.output[0], track)


def resize(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Resize and Upsample by constant factors, 1 for the channels."""
    track = only(tracer, node)
    position = 1 if node.op_type == "Upsample" else 2
    scales = tracer.facts.constant(node.input[position]) if len(node.input) > position else None
    if scales is None or scales.size != track.rank or float(scales.reshape(-1)[track.axis]) != 1.0:
        raise Unproven("it is not known to leave the number of channels")
    tracer.follow(node.output[0], track)


def flatten(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Flatten into two axes."""
    track = only(tracer, node)
    place = integer(node, "axis", 1) % (track.rank + 1)
    shape = tracer.facts.shape(node.input[0]) or (None,) * track.rank
    into = 0 if track.axis < place else 1
    block = range(place) if into == 0 else range(place, track.rank)
    tracer.follow(node.output[0], Track(into, 2, _merged(track, shape, block)))


def _merged(track: Track, shape: Shape, block: range) -> Labels:
    """Labels along an axis that several axes in row-major order were merged into."""
    sizes = [shape[axis] for axis in block if axis != track.axis]
    if any(size is None for size in sizes):
        raise Unproven("it merges channels with axes of unknown size")
    before = math.prod(shape[axis] or 1 for axis in block if axis < track.axis)
    behind = math.prod(shape[axis] or 1 for axis in block if axis > track.axis)
    return np.tile(np.repeat(track.labels, behind), before)


def reshape(tracer: Tracer, node: onnx.NodeProto) -> None:
    """Reshape where the channels stay whole: behind them only axes of known size, none of them split."""
    track = only(tracer, node)
    target = tracer.facts.constant(node.input[1])
    shape = tracer.facts.shape(node.input[0])
    if target is None or shape is None or (integer(node, "allowzero", 0) and 0 in target):
        raise Unproven("its target is computed")
    wanted = [int(value) for value in np.asarray(target).reshape(-1)]
    axis, labels = _place(track, shape, _resolved(wanted, shape))
    if axis != track.axis and (wanted[axis] == 0 or wanted[track.axis : track.axis + 1] == [0]):
        raise Unproven("it copies the size of another axis")
    if wanted[axis] > 0:
        tracer.resizes.append(Resize(node.output[0], "reshape", (labels,), axis))
    tracer.follow(node.output[0], Track(axis, len(wanted), labels))


def _resolved(wanted: list[int], shape: Shape) -> Shape:
    """The target's sizes, None where unknown. A -1 can be told when everything else can."""
    sizes: list[int | None] = [
        (shape[axis] if axis < len(shape) else None) if size == 0 else size for axis, size in enumerate(wanted)
    ]
    if -1 in wanted:
        place = wanted.index(-1)
        known = [size for size in shape if size is not None]
        zeros_cancel = sum(size is None for size in shape) == sum(size is None for size in sizes)
        others = math.prod(size for axis, size in enumerate(sizes) if size is not None and axis != place)
        sizes[place] = math.prod(known) // others if zeros_cancel and others else None
    return tuple(sizes)


def _place(track: Track, shape: Shape, sizes: Shape) -> tuple[int, Labels]:
    """Find the axis of the target that holds the channels, counting elements from the last axis."""
    behind = _product(shape[track.axis + 1 :])
    through = behind * len(track.labels)
    passed = 1
    for axis in reversed(range(len(sizes))):
        size = sizes[axis]
        if size is None:
            # An open axis may hold the channels only if it holds exactly the rest; which cannot be told.
            raise Unproven("it reshapes axes of unknown size")
        if passed <= behind and passed * size >= through and behind % passed == 0:
            merged = np.repeat(track.labels, behind // passed)
            if size % len(merged) or not _whole(shape[: track.axis], size // len(merged)):
                break
            return axis, np.tile(merged, size // len(merged))
        passed *= size
        if passed > behind:
            break
    raise Unproven("it splits the channels over several axes")


def _whole(before: Shape, factor: int) -> bool:
    """Tell whether axes just before the channels have `factor` elements, so that they were merged as a whole."""
    for size in reversed(before):
        if factor == 1:
            return True
        if size is None or factor % size:
            return False
        factor //= size
    return factor == 1


def _product(sizes: Shape) -> int:
    if any(size is None for size in sizes):
        raise Unproven("behind the channels lies an axis of unknown size")
    return math.prod(size or 1 for size in sizes)


REDUCTIONS = (
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceProd",
)

MOVERS = dict.fromkeys(REDUCTIONS, reduce) | {
    "Concat": concat,
    "Flatten": flatten,
    "Pad": pad,
    "Reshape": reshape,
    "Resize": resize,
    "Slice": cut_out,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Upsample": resize,
}
"""By operator."""
