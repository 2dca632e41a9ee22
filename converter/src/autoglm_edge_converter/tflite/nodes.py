"""What in a TFLite graph is worth quantizing: the products, and what follows from them.

Works on a file made ready by `prepare`: every tensor has a short name of its own, which scopes of recipes and keys of
ranges can rely on, and nothing in it but what is needed to run.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from autoglm_edge_converter.tflite.editing import drop_metadata, serialize, unpack, widen_halves
from autoglm_edge_converter.tflite.flatbuffer import Operation, Subgraph, TfliteModel, read_model

PRODUCTS: Mapping[str, tuple[int, int]] = {
    "CONV_2D": (0, 1),
    "DEPTHWISE_CONV_2D": (0, 1),
    "FULLY_CONNECTED": (0, 1),
    "TRANSPOSE_CONV": (2, 1),
    "BATCH_MATMUL": (0, 1),
}
"""Where the multiplications are: which input holds the data and which the weights."""

MOVERS = frozenset(
    (
        "GATHER",
        "GATHER_ND",
        "MIRROR_PAD",
        "PAD",
        "PADV2",
        "RESHAPE",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "STRIDED_SLICE",
        "TRANSPOSE",
        "UNPACK",
    )
)
"""Followers that only move numbers: worth quantizing between quantized operators, not at the end of a chain."""

FOLLOWERS = MOVERS | frozenset(
    (
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "LOGISTIC",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MEAN",
        "MUL",
        "PACK",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SUB",
        "SUM",
        "TANH",
    )
)
"""Cheap operators with fast 8-bit kernels: quantizing them saves going to float and back."""

LOSSY = frozenset(("DIV", "RELU", "HARD_SWISH", "GELU", "RSQRT", "SOFTMAX", "SQRT", "SQUARED_DIFFERENCE", "REDUCE_MIN"))
"""Those that lose much on 8 bits, or whose 8-bit kernels are slow because XNNPACK has none (RELU by itself made a face
detector five times slower, HARD_SWISH a classifier twice): only for accelerators that know nothing but integers."""


@dataclass(frozen=True)
class Node:
    """An operator of the graph that is run, which multiplies. Names are those of the original file."""

    name: str
    """Of its output tensor."""
    kind: str
    output: int
    data: int
    weight: int
    """Indices of tensors."""
    constant: bool
    """Its weight is in the file."""


@dataclass(frozen=True)
class Prepared:
    """A float file made ready, and what was in it."""

    data: bytes
    model: TfliteModel
    """As `data` has it: tensors are called `t0`, `t1`, ..."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    names: tuple[str, ...]
    """What the tensors of the graph that is run were called; each name once."""

    @property
    def graph(self) -> Subgraph:
        """The graph that is run."""
        return self.model.main

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The products of the graph, in its order."""
        return tuple(self._node(entry) for entry in self.graph.operations if self._is_product(entry))

    def _is_product(self, entry: Operation) -> bool:
        if entry.kind not in PRODUCTS or entry.custom or not self.is_float(entry.outputs[0]):
            return False
        weight = self.graph.tensors[entry.inputs[PRODUCTS[entry.kind][1]]]
        return weight.dtype == "float32" and (weight.constant_bytes > 0 or entry.kind == "BATCH_MATMUL")

    def _node(self, entry: Operation) -> Node:
        data, weight = (entry.inputs[place] for place in PRODUCTS[entry.kind])
        constant = self.graph.tensors[weight].constant_bytes > 0
        return Node(self.names[entry.outputs[0]], entry.kind, entry.outputs[0], data, weight, constant)

    def is_float(self, tensor: int) -> bool:
        """Tell whether a tensor is a float32 one that is computed or fed."""
        found = self.graph.tensors[tensor]
        return found.dtype == "float32" and not found.constant_bytes

    def floats(self, tensors: Iterable[int]) -> list[int]:
        """Return those of the tensors that `is_float` holds for."""
        return [index for index in tensors if index >= 0 and self.is_float(index)]


def prepare(data: bytes) -> Prepared:
    """Make a float file ready. Raises NotAModel."""
    found = read_model(data)
    changed = unpack(data)
    drop_metadata(changed)
    widen_halves(changed)
    for number, graph in enumerate(changed.subgraphs):
        graph.name = None
        for index, tensor in enumerate(graph.tensors):
            tensor.name = (f"g{number}" if number else "").encode() + f"t{index}".encode()
    changed.signatureDefs = []
    ready = serialize(changed)
    names = _unique([tensor.name for tensor in found.main.tensors])
    inputs, outputs = (tuple(port.name for port in side) for side in (found.inputs, found.outputs))
    return Prepared(ready, read_model(ready), inputs, outputs, names)


def _unique(names: list[str]) -> tuple[str, ...]:
    taken: set[str] = set()
    found = []
    for index, name in enumerate(names):
        free = name if name and name not in taken else f"{name};{index}"
        taken.add(free)
        found.append(free)
    return tuple(found)


def ends(prepared: Prepared) -> tuple[tuple[str, ...], ...]:
    """Return the products to leave in float on trial: those that give the outputs, then those that read inputs too.

    The heads of a detector give raw numbers, and a first layer has few channels: both lose more by 8 bits, and gain
    less, than what lies between. Nothing where little would lie between.
    """
    names = {node.output: node.name for node in prepared.nodes}
    steps = [(names.get(entry.outputs[0]), entry.inputs, entry.outputs) for entry in prepared.graph.operations]
    first = _foremost(steps)
    last = _foremost([(name, outputs, inputs) for name, inputs, outputs in reversed(steps)])
    both = tuple(dict.fromkeys((*first, *last)))
    return (last, both) if 2 * len(both) < len(names) else ()


def _foremost(steps: Iterable[tuple[str | None, tuple[int, ...], tuple[int, ...]]]) -> tuple[str, ...]:
    """Return the products that are come to with no other one on the way.

    `steps`: the name of each product, None for another operator, and which tensors it is come to from and leads to.
    """
    behind: set[int] = set()
    found: list[str] = []
    for name, come_from, lead_to in steps:
        reached = not behind.isdisjoint(come_from)
        if name is not None and not reached:
            found.append(name)
        if name is not None or reached:
            behind.update(lead_to)
    return tuple(found)


def quantized_operations(
    prepared: Prepared, chosen: Collection[str], *, followers: bool, everything: bool = False
) -> tuple[Operation, ...]:
    """Return the operators to quantize: the nodes named, and followers whose float inputs all come from the set.

    `everything` is for a whole network on integers: what loses much too, and what reads the inputs of the graph.
    """
    allowed = FOLLOWERS | LOSSY if everything else FOLLOWERS if followers else frozenset[str]()
    products = {node.output for node in prepared.nodes if node.name in set(chosen)}
    on_integers = set(prepared.graph.inputs) if everything else set()
    found = []
    for entry in prepared.graph.operations:
        if entry.custom or not entry.outputs:
            continue
        floats = prepared.floats(entry.inputs)
        follows = entry.kind in allowed and floats and on_integers.issuperset(floats)
        if entry.outputs[0] in products or (follows and prepared.floats(entry.outputs)):
            found.append(entry)
            on_integers.update(entry.outputs)
    return tuple(found) if everything else _without_trailing_movers(found)


def _without_trailing_movers(found: list[Operation]) -> tuple[Operation, ...]:
    read: set[int] = set()
    kept = []
    for entry in reversed(found):
        if entry.kind in MOVERS and not read.intersection(entry.outputs):
            continue
        kept.append(entry)
        read.update(entry.inputs)
    return tuple(reversed(kept))


def multiplications(prepared: Prepared, node: Node, shapes: Mapping[int, tuple[int, ...]]) -> float:
    """Return how many multiplications a node does, by the shapes that were seen of the tensors that are computed."""
    weight = tuple(size or 1 for size in prepared.graph.tensors[node.weight].shape)
    made, read = math.prod(shapes.get(node.output, ())), math.prod(shapes.get(node.data, ()))
    if node.output not in shapes:
        return 0.0
    if node.kind == "TRANSPOSE_CONV":
        return float(read * math.prod(weight) / max(1, weight[-1]))
    if node.kind == "DEPTHWISE_CONV_2D":
        return float(made * math.prod(weight[:-1]))
    if node.kind == "BATCH_MATMUL":
        return float(made * shapes.get(node.data, (1,))[-1])
    return float(made * math.prod(weight[1:]))
