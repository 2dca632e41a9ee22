"""What a recipe did to the operators of a float TFLite file, read off the file that was written. Pure.

Operators are followed by the index of what they give: the quantizer adds tensors behind those that were there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from autoglm_edge_converter.explain.explanation import EIGHT_BITS, FLOAT, KEPT, REPLACED, SMALL_WEIGHTS, Fate, Need
from autoglm_edge_converter.explain.graph import Graph, Operator
from autoglm_edge_converter.explain.onnx_variant import (
    BY_SEARCH,
    INPUT_IN_FLOAT,
    LEFT,
    NO_FORM,
    NO_GAIN,
    NOTHING_BEHIND,
    PRODUCTS_ONLY,
    State,
)
from autoglm_edge_converter.recipes import STATIC, Candidate
from autoglm_edge_converter.tflite.flatbuffer import Operation, Subgraph, TfliteModel
from autoglm_edge_converter.tflite.nodes import FOLLOWERS, LOSSY, MOVERS, PRODUCTS
from autoglm_edge_converter.tflite.operators import oldest_reader

_RUNTIMES = ("litert", "tflite")
_SMALL = ("int8", "float16")


def tflite_graph(graph: Subgraph, names: Collection[str] = ()) -> Graph:
    """Return a subgraph with tensors by index; operators are known by what their outputs are called."""
    called = tuple(names) or tuple(tensor.name for tensor in graph.tensors)
    operators = tuple(
        Operator(
            entry.kind,
            called[entry.outputs[0]] if entry.outputs else "",
            tuple(str(index) for index in entry.inputs if index >= 0),
            tuple(str(index) for index in entry.outputs),
        )
        for entry in graph.operations
    )
    constants = {str(index) for index, tensor in enumerate(graph.tensors) if tensor.constant_bytes}
    return Graph(operators, frozenset(constants))


def fates(before: Subgraph, after: Subgraph, names: Collection[str], candidate: Candidate | None) -> tuple[Fate, ...]:
    """Return what became of each operator of a float graph in a file that was made of it."""
    called = tuple(names)
    made = {index: entry for entry in after.operations for index in entry.outputs}
    found = []
    for entry in before.operations:
        name = called[entry.outputs[0]] if entry.outputs else ""
        there = next((made[index] for index in entry.outputs if index in made), None)
        state = State(REPLACED, there.kind if there else "", "the float file is made ready")
        if there is not None and there.kind == entry.kind:
            state = _kept(there, after, name, candidate)
        elif there is None:
            state = _widened(entry, before)
        found.append(Fate(entry.kind, name, state.became, state.into, state.why))
    return tuple(found)


def _widened(entry: Operation, before: Subgraph) -> State:
    if entry.kind == "DEQUANTIZE" and before.tensors[entry.inputs[0]].constant_bytes:
        return State("folded", why="weights stored on 16 bits were widened to float32")
    return State("gone", why="nothing reads it")


def _kept(there: Operation, after: Subgraph, name: str, candidate: Candidate | None) -> State:
    if candidate is None:
        return State(KEPT)
    tensors = [after.tensors[index] for index in there.inputs if index >= 0]
    made = after.tensors[there.outputs[0]]
    if made.dtype == "int8" and any(tensor.dtype == "int8" for tensor in tensors):
        return State(EIGHT_BITS)
    if there.kind in PRODUCTS and (small := _weight_dtype(there, after)):
        if small == "int8 dynamic":
            return State(EIGHT_BITS, why="ranges are found at each run")
        return State(SMALL_WEIGHTS, why=f"weights on {'8' if small == 'int8' else '16'} bits, computed in float")
    return _in_float(there, after, name, candidate)


def _weight_dtype(there: Operation, after: Subgraph) -> str | None:
    """Return the dtype in which a product's weights are stored, where that is small: directly, or widened in front."""
    weight = there.inputs[PRODUCTS[there.kind][1]]
    if after.tensors[weight].dtype == "int8":
        return "int8 dynamic"
    widened = next((entry for entry in after.operations if weight in entry.outputs), None)
    if widened is None or widened.kind != "DEQUANTIZE":
        return None
    source = after.tensors[widened.inputs[0]]
    return source.dtype if source.constant_bytes and source.dtype in _SMALL else None


def _in_float(entry: Operation, after: Subgraph, name: str, candidate: Candidate) -> State:
    if candidate.recipe.family != STATIC:
        return State(KEPT, why=LEFT)
    if name in candidate.float_nodes:
        return State(FLOAT, why=BY_SEARCH)
    if entry.kind in PRODUCTS:
        return State(FLOAT, why=NO_FORM)
    if entry.kind in LOSSY:
        return State(FLOAT, why="loses much on 8 bits, or has no fast 8-bit kernel")
    if entry.kind not in FOLLOWERS or after.tensors[entry.outputs[0]].dtype != "float32":
        return State(KEPT, why=NO_GAIN)
    return State(FLOAT, why=_follower(entry, candidate))


def _follower(entry: Operation, candidate: Candidate) -> str:
    if not candidate.recipe.followers:
        return PRODUCTS_ONLY
    return NOTHING_BEHIND if entry.kind in MOVERS else INPUT_IN_FLOAT


def needs(model: TfliteModel) -> tuple[Need, ...]:
    """Return the operators of a file with their versions, and the oldest release of each runtime that reads them."""
    counts = Counter((entry.kind, entry.version, entry.custom) for entry in model.operations())
    found = []
    for (kind, version, custom), count in counts.most_common():
        code = next(
            entry for entry in model.codes if (entry.kind, entry.version, entry.custom) == (kind, version, custom)
        )
        alone = replace(model, codes=(code,))
        readers = tuple((runtime, oldest_reader(alone, runtime)) for runtime in _RUNTIMES)
        found.append(Need(kind, version, count, readers))
    return tuple(found)


def file_needs(model: TfliteModel) -> str:
    """Return who reads the file as a whole."""
    names = {"litert": "LiteRT", "tflite": "tflite-runtime"}
    found = [f"{names[runtime]} {oldest_reader(model, runtime) or '(no release known)'}" for runtime in _RUNTIMES]
    return f"read by {' and '.join(found)}, and newer"
