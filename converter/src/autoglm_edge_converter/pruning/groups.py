"""Groups of coupled channels: which layers' channels can be pruned, and for the others why not.

The idea is that of "Structurally Prune Anything" (arXiv 2403.18955): channels are followed from the layer that makes
them through every operator to the layers that read them, and what meets on the way is coupled. Here an operator that is
not known freezes what it touches, so that a pruned graph is always exactly the graph without those channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from autoglm_edge_converter.pruning.carriers import CARRIERS
from autoglm_edge_converter.pruning.channels import Labels
from autoglm_edge_converter.pruning.graph import STANDARD, GraphFacts, name_of, prepared, read_inside
from autoglm_edge_converter.pruning.layers import LAYERS
from autoglm_edge_converter.pruning.movers import MOVERS
from autoglm_edge_converter.pruning.tracer import Cut, Layer, Resize, Tracer, Unproven

OPERATORS = CARRIERS | MOVERS


@dataclass(frozen=True)
class Group:
    """Layers whose channels are coupled. A class is a set of channels that go together, named by its smallest label."""

    name: str
    layers: tuple[str, ...]
    """Names of the nodes that make the channels."""
    width: int
    """How many classes there are: of one layer, its channels."""
    free: tuple[int, ...]
    """The classes that can be taken out."""
    reason: str | None
    """Why not all of them can, None where they can."""


@dataclass(frozen=True)
class ChannelMap:
    """Where the classes of channels lie in a graph. Labels in it are classes."""

    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]
    cuts: tuple[Cut, ...]
    resizes: tuple[Resize, ...]


def find_groups(proto: onnx.ModelProto) -> tuple[Group, ...]:
    """Return every group of coupled channels of a graph, those that cannot be pruned included. Changes nothing."""
    return map_channels(prepared(proto)).groups


def map_channels(proto: onnx.ModelProto) -> ChannelMap:
    """Follow the channels of a graph whose constants are initializers (see `graph.prepared`)."""
    tracer = Tracer(GraphFacts(proto))
    for node in proto.graph.node:
        _follow(tracer, node)
    for value in proto.graph.output:
        tracer.freeze(value.name, f"they are the model's output {value.name!r}")
    cuts = tracer.settle()
    roots = tracer.channels.roots()
    layers = tuple(
        replace(
            layer,
            inputs=None if layer.inputs is None else roots[layer.inputs],
            outputs=roots[layer.outputs],
        )
        for layer in tracer.layers
    )
    resizes = tuple(
        Resize(entry.node, entry.kind, tuple(roots[part] for part in entry.parts), entry.axis)
        for entry in tracer.resizes
    )
    return ChannelMap(
        _groups(tracer, roots), layers, tuple(Cut(cut.tensor, cut.axis, roots[cut.labels]) for cut in cuts), resizes
    )


def _follow(tracer: Tracer, node: onnx.NodeProto) -> None:
    reads = [name for name in (*node.input, *read_inside(node)) if tracer.track(name) is not None]
    operators = LAYERS | (OPERATORS if reads else {})
    act = operators.get(node.op_type) if node.domain in STANDARD else None
    try:
        if act is not None:
            act(tracer, node)
        elif reads:
            raise Unproven("the operator is not known to keep channels apart")
    except Unproven as problem:
        for name in reads:
            tracer.freeze(name, f"{node.op_type} {name_of(node)}: {problem}")


def _groups(tracer: Tracer, roots: Labels) -> tuple[Group, ...]:
    """Layers that share a class are one group; groups are in the order of the graph."""
    members: dict[str, set[int]] = {}
    for label, root in enumerate(roots.tolist()):
        members.setdefault(tracer.channels.layer(label), set()).add(root)
    groups: list[tuple[list[str], set[int]]] = []
    for layer, classes in members.items():
        joined = [group for group in groups if group[1] & classes]
        for group in joined[1:]:
            joined[0][0].extend(group[0])
            joined[0][1].update(group[1])
            groups.remove(group)
        if joined:
            joined[0][0].append(layer)
            joined[0][1].update(classes)
        else:
            groups.append(([layer], set(classes)))
    return tuple(_group(tracer, layers, classes) for layers, classes in groups)


def _group(tracer: Tracer, layers: list[str], classes: set[int]) -> Group:
    reasons = {label: tracer.channels.reason(label) for label in sorted(classes)}
    free = tuple(label for label, reason in reasons.items() if reason is None)
    reason = next((reason for reason in reasons.values() if reason is not None), None)
    return Group(layers[0], tuple(layers), len(classes), free, reason)
