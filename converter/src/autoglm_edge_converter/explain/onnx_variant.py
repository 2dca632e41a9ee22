"""What a recipe did to the operators of a float ONNX graph, read off the file that was written. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from autoglm_edge_converter.explain.explanation import EIGHT_BITS, FLOAT, FUSED, KEPT, REPLACED, SMALL_WEIGHTS, Need
from autoglm_edge_converter.explain.graph import Graph, Operator, graph_of
from autoglm_edge_converter.inspection import FOLLOWERS, MOVERS, WEIGHTED
from autoglm_edge_converter.recipes import STATIC, Candidate
from autoglm_edge_converter.source import opset_of
from autoglm_edge_converter.targets import OLDEST_READER, RUNTIMES

_ACTIVATIONS = ("Relu", "Clip")
BY_SEARCH = "left by the search: on 8 bits it costs too much quality"
NO_GAIN = "on 8 bits it loses much or gains nothing"
INPUT_IN_FLOAT = "what it reads is in float"
NOTHING_BEHIND = "nothing that works on 8 bits reads what it gives, or makes what it reads"
NO_FORM = "its weights are no constants, or the quantizer has no 8-bit form of it"
PRODUCTS_ONLY = "the recipe quantizes products only"
LEFT = "the recipe leaves it as it is"


@dataclass(frozen=True)
class State:
    """An operator of the float graph in the variant."""

    became: str
    into: str = ""
    why: str = ""


@dataclass(frozen=True)
class _Sides:
    """The tensors of a file that stand for numbers on fewer bits."""

    computed: frozenset[str]
    """Dequantized, and made by a QuantizeLinear."""
    stored: frozenset[str]
    """Constants on 8 bits behind a DequantizeLinear."""
    halves: frozenset[str]


def states(proto: onnx.ModelProto, floats: Graph, candidate: Candidate | None) -> dict[str, State]:
    """Return the state of each operator of the float graph by its name, those left out that cannot be told."""
    graph = graph_of(proto)
    sides = _sides(graph)
    named = {entry.name: entry for entry in graph.operators if entry.name}
    found = {}
    for entry in floats.operators:
        there = named.get(entry.name)
        if there is not None and there.kind == entry.kind:
            found[entry.name] = _kept(there, graph, sides, candidate)
        elif there is None and entry.kind in _ACTIVATIONS:
            before = floats.makers.get(entry.inputs[0])
            found[entry.name] = State(FUSED, before.kind if before else "", "the ends of the 8-bit range do the same")
        elif (maker := next((graph.makers[name] for name in entry.outputs if name in graph.makers), None)) is not None:
            integer = named.get(f"{entry.name}_integer")
            found[entry.name] = State(REPLACED, (integer or maker).kind, "the recipe's 8-bit form")
    return found


def _sides(graph: Graph) -> _Sides:
    computed: set[str] = set()
    stored: set[str] = set()
    halves: set[str] = set()
    for entry in graph.operators:
        if entry.kind == "DequantizeLinear":
            (stored if entry.inputs[0] in graph.constants else computed).update(entry.outputs)
        if entry.kind == "Cast" and entry.inputs[0] in graph.constants:
            halves.update(entry.outputs)
    return _Sides(frozenset(computed), frozenset(stored), frozenset(halves))


def _kept(there: Operator, graph: Graph, sides: _Sides, candidate: Candidate | None) -> State:
    if candidate is None:
        return State(KEPT)
    reads = bool(there.inputs) and there.inputs[0] in sides.computed
    gives = any(reader.kind == "QuantizeLinear" for name in there.outputs for reader in graph.readers.get(name, ()))
    weights = bool(sides.stored.intersection(there.inputs[1:]))
    if reads and (gives or weights):
        return State(EIGHT_BITS)
    if weights:
        return State(SMALL_WEIGHTS, why="weights on 8 bits, computed in float")
    if sides.halves.intersection(there.inputs):
        return State(SMALL_WEIGHTS, why="weights on 16 bits, computed in float")
    return State(*_in_float(there, reads, candidate))


def _in_float(entry: Operator, reads: bool, candidate: Candidate) -> tuple[str, str, str]:
    if candidate.recipe.family != STATIC:
        return KEPT, "", LEFT
    if entry.name in candidate.float_nodes:
        return FLOAT, "", BY_SEARCH
    if entry.kind in WEIGHTED:
        return FLOAT, "", NO_FORM
    if entry.kind not in FOLLOWERS:
        return KEPT, "", NO_GAIN
    if not candidate.recipe.followers:
        return FLOAT, "", PRODUCTS_ONLY
    return FLOAT, "", NOTHING_BEHIND if reads or entry.kind in MOVERS else INPUT_IN_FLOAT


def needs(proto: onnx.ModelProto) -> tuple[Need, ...]:
    """Return the operators of a file, the version that its operator set gives them, and who reads that."""
    counts = graph_of(proto).counts()
    return tuple(_need(kind, count, opset_of(proto)) for kind, count in counts.items())


def file_needs(proto: onnx.ModelProto) -> str:
    """Return who reads the file as a whole: a runtime reads every operator of a set or none."""
    opset = opset_of(proto)
    return f"operator set {opset}, read by onnxruntime {OLDEST_READER.get(opset, 'of a release not known')} and newer"


def _need(kind: str, count: int, opset: int) -> Need:
    domain, _, name = kind.rpartition(":")
    runtime = RUNTIMES["onnx"][0]
    if domain or not onnx.defs.has(name, opset, ""):
        return Need(kind, 1, count, ((runtime, None),))
    since = onnx.defs.get_schema(name, opset, "").since_version
    older = [opset_ for opset_ in OLDEST_READER if opset_ >= since]
    return Need(kind, since, count, ((runtime, OLDEST_READER[min(older)] if older else None),))
