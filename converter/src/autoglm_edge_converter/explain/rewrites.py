"""Following operators through rewrites of a graph by the names of their outputs, which rewrites keep where they can.

A rewrite that renames everything but changes no operator is followed by position. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoglm_edge_converter.explain.explanation import ADDED, FOLDED, FUSED, GONE, KEPT, REPLACED, Fate
from autoglm_edge_converter.explain.graph import Graph, Operator

_IDLE = ("Identity", "Dropout")
"""They do nothing once a network is trained."""


@dataclass(frozen=True)
class Step:
    """A rewrite and the graph after it."""

    name: str
    graph: Graph


@dataclass(frozen=True)
class Followed:
    """An operator of the first graph: its fate, and what does its work in the last, where something does."""

    fate: Fate
    carrier: Operator | None


def follow(original: Graph, steps: Sequence[Step]) -> tuple[Followed, ...]:
    """Return what became of each operator; those that rewrites brought in come last, as `added`."""
    found = [Followed(Fate(entry.kind, entry.known_as, KEPT), entry) for entry in original.operators]
    before = original
    brought: dict[int, str] = {}
    for step in steps:
        moved = _moved(before, step.graph)
        found = _merged([_after(entry, moved, before, step) for entry in found], step)
        brought = _brought(before, step, moved, brought)
        before = step.graph
    carried = {id(entry.carrier) for entry in found}
    added = [
        Followed(Fate(entry.kind, entry.known_as, ADDED, why=brought[id(entry)]), entry)
        for entry in before.operators
        if id(entry) in brought and id(entry) not in carried
    ]
    return (*found, *added)


def _merged(found: Sequence[Followed], step: Step) -> list[Followed]:
    """Of several operators that one does the work of now, the last is kept and the others are fused into it."""
    last = {id(entry.carrier): position for position, entry in enumerate(found) if entry.fate.became == KEPT}
    return [
        replace(entry, fate=replace(entry.fate, became=FUSED, into=entry.carrier.kind, why=step.name))
        if entry.carrier is not None and entry.fate.became == KEPT and last[id(entry.carrier)] != position
        else entry
        for position, entry in enumerate(found)
    ]


def _moved(before: Graph, after: Graph) -> Mapping[int, Operator]:
    """Return where each operator is afterwards, by its output or, where only names changed, by its position."""
    kinds = [[entry.kind for entry in graph.operators] for graph in (before, after)]
    if kinds[0] == kinds[1]:
        return {id(old): new for old, new in zip(before.operators, after.operators, strict=True)}
    return {
        id(entry): after.makers[output]
        for entry in before.operators
        if (output := next((name for name in entry.outputs if name in after.makers), None))
    }


def _after(entry: Followed, moved: Mapping[int, Operator], before: Graph, step: Step) -> Followed:
    if entry.carrier is None:
        return entry
    there = moved.get(id(entry.carrier))
    if there is not None and there.kind == entry.carrier.kind:
        return replace(entry, carrier=there)
    became, carrier = _change(entry.carrier, there, before, step.graph, moved)
    if became == KEPT:
        return replace(entry, carrier=carrier)
    if entry.fate.became != KEPT:
        # What first happened is told; the last graph's operator stands for where it ended.
        return replace(entry, carrier=carrier, fate=replace(entry.fate, into=carrier.kind if carrier else ""))
    into = carrier.kind if carrier is not None and became in (FUSED, REPLACED) else ""
    return Followed(replace(entry.fate, became=became, into=into, why=step.name), carrier)


def _change(
    entry: Operator, there: Operator | None, before: Graph, after: Graph, moved: Mapping[int, Operator]
) -> tuple[str, Operator | None]:
    if entry.kind in _IDLE:
        return GONE, None
    if there is not None:
        read = [made for name in entry.inputs if (made := before.makers.get(name))]
        joined = any(made.kind == there.kind or not _remains(made, after) for made in read)
        if joined and entry.kind == "Cast":
            return GONE, None  # to the type that it was already
        return (FUSED if joined else REPLACED), there
    if after.constants.intersection(entry.outputs) or _is_constant(entry, before):
        return FOLDED, None
    reached = _downstream(entry, before, after)
    return (GONE, None) if reached is None else _taken_over(entry, *reached)


def _taken_over(entry: Operator, reader: Operator, maker: Operator) -> tuple[str, Operator | None]:
    """Tell what became of an operator by one behind it, and by what gives that one's output now."""
    if maker.kind == entry.kind and reader.kind != entry.kind:
        return KEPT, maker  # it took in what stood behind it
    if maker.kind == reader.kind == entry.kind:
        return FUSED, maker
    if maker.kind == reader.kind:
        return FOLDED if _reads_shapes(entry) else GONE, None
    return FUSED, maker


def _remains(entry: Operator, graph: Graph) -> bool:
    return any(name in graph.makers or name in graph.constants for name in entry.outputs)


def _is_constant(entry: Operator, graph: Graph) -> bool:
    """Tell whether an operator reads nothing but constants, by whatever way."""
    waiting, seen = list(entry.inputs), set[str]()
    while waiting:
        name = waiting.pop()
        if not name or name in graph.constants or name in seen:
            continue
        seen.add(name)
        maker = graph.makers.get(name)
        if maker is None:
            return False
        waiting.extend(maker.inputs)
    return True


def _reads_shapes(entry: Operator) -> bool:
    return entry.kind in (
        "Shape",
        "Size",
        "Gather",
        "Concat",
        "Unsqueeze",
        "Squeeze",
        "Cast",
        "Slice",
        "ConstantOfShape",
    )


def _downstream(entry: Operator, before: Graph, after: Graph) -> tuple[Operator, Operator] | None:
    """Return the nearest operator behind one whose output is still made, and what makes it afterwards."""
    waiting, seen = list(entry.outputs), set[str]()
    while waiting:
        name = waiting.pop(0)
        for reader in before.readers.get(name, ()):
            for output in reader.outputs:
                if output in after.makers:
                    return reader, after.makers[output]
                if output not in seen:
                    seen.add(output)
                    waiting.append(output)
    return None


def _brought(before: Graph, step: Step, moved: Mapping[int, Operator], brought: Mapping[int, str]) -> dict[int, str]:
    """Return which operators of the graph after a step are no one's from before, with the step that brought them."""
    kept = {id(moved[key]): name for key, name in brought.items() if key in moved}
    stayed = {id(entry) for entry in moved.values()}
    return kept | {id(entry): step.name for entry in step.graph.operators if id(entry) not in stayed}
