"""Explaining every shipped variant: from the user's model over its float files to what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from autoglm_edge_converter.explain import onnx_variant
from autoglm_edge_converter.explain.explanation import (
    ADDED,
    BY_COUNT,
    BY_NAME,
    KEPT,
    Explanation,
    Fate,
)
from autoglm_edge_converter.explain.graph import Graph, graph_of
from autoglm_edge_converter.explain.rewrites import Followed, Step, follow
from autoglm_edge_converter.optimise import PassOutcome
from autoglm_edge_converter.original import ONNX, TFLITE, Original, Rendition
from autoglm_edge_converter.recipes import OPTIMISED, Candidate

FINETUNED = "finetuned"
"""How the names of float graphs begin that a road pruned and trained."""

BETWEEN = "goes between float and fewer bits"
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Written:
    """A variant as it lies on the disk."""

    id: str
    format: str
    path: Path
    candidate: Candidate | None


def survey(
    source: Original, passes: Sequence[PassOutcome], float_onnx: Path | None, written: Sequence[Written]
) -> tuple[Explanation, ...]:
    """Explain variants. `float_onnx` is the optimised graph that the ONNX ones were made of. Raises OSError."""
    followed = _followed(source, passes, float_onnx)
    names = _tflite_names(source) if any(entry.format == TFLITE for entry in written) else ()
    return tuple(
        _explain_tflite(source, names, entry) if entry.format == TFLITE else _explain_onnx(source, followed, entry)
        for entry in written
    )


@dataclass(frozen=True)
class _FollowedGraph:
    original: Graph
    floats: Graph
    operators: tuple[Followed, ...]


def _followed(source: Original, passes: Sequence[PassOutcome], float_onnx: Path | None) -> _FollowedGraph | None:
    if float_onnx is None or source.rendition(ONNX) is None:
        return None
    original, last = graph_of(source.proto), graph_of(onnx.load(float_onnx))
    steps = [Step(entry.name, entry.graph) for entry in passes if entry.graph is not None]
    return _FollowedGraph(original, last, follow(original, [*steps, Step("write", last)]))


def _explain_onnx(source: Original, followed: _FollowedGraph | None, entry: Written) -> Explanation:
    assert followed is not None  # an ONNX variant was made of a float graph
    proto = onnx.load(entry.path)
    exact = _same_graph(entry.candidate)
    states = onnx_variant.states(proto, followed.floats, entry.candidate)
    rows = tuple(_composed(one, states) for one in followed.operators) if exact else ()
    after = graph_of(proto)
    return Explanation(
        variant=entry.id,
        source=_told(source, source.rendition(ONNX)),
        how=BY_NAME if exact else BY_COUNT,
        fates=rows + (_brought(followed.floats.counts(), after.counts()) if exact else ()),
        before=tuple(followed.original.counts().items()),
        after=tuple(after.counts().items()),
        needs=onnx_variant.needs(proto),
        file_needs=onnx_variant.file_needs(proto),
        road=_road(source, ONNX),
    )


def _composed(entry: Followed, states: Mapping[str, onnx_variant.State]) -> Fate:
    state = states.get(entry.carrier.name) if entry.carrier is not None else None
    if state is None or entry.fate.became != KEPT:
        return entry.fate
    return replace(entry.fate, became=state.became, into=state.into, why=state.why)


def _brought(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[Fate, ...]:
    """Return the operators that the recipe brought in: those whose kind the float graph did not have."""
    return tuple(
        Fate(kind, "", ADDED, why=BETWEEN if kind in _CONVERSIONS else "by the recipe")
        for kind, number in after.items()
        if kind not in before
        for _ in range(number)
    )


def _tflite_names(source: Original) -> tuple[str, ...]:
    """Return what candidates call the tensors of the float file."""
    from autoglm_edge_converter.tflite.nodes import prepare  # needs packages that ONNX does without

    rendition = source.rendition(TFLITE)
    assert rendition is not None
    assert rendition.path is not None
    return prepare(rendition.path.read_bytes()).names


def _explain_tflite(source: Original, names: Sequence[str], entry: Written) -> Explanation:
    from autoglm_edge_converter.explain import tflite_variant  # needs packages that ONNX does without
    from autoglm_edge_converter.tflite.flatbuffer import read_model

    rendition = source.rendition(TFLITE)
    assert rendition is not None
    assert rendition.path is not None
    base, written = (read_model(path.read_bytes(), path.name) for path in (rendition.path, entry.path))
    exact = entry.candidate is None or entry.candidate.graph == OPTIMISED  # pruned files are written anew
    before, after = tflite_variant.tflite_graph(base.main), tflite_variant.tflite_graph(written.main)
    rows = tflite_variant.fates(base.main, written.main, names, entry.candidate) if exact else ()
    return Explanation(
        variant=entry.id,
        source=_told(source, rendition),
        how=BY_NAME if exact else BY_COUNT,
        fates=rows + (_brought(before.counts(), after.counts()) if exact else ()),
        before=tuple(before.counts().items()),
        after=tuple(after.counts().items()),
        needs=tflite_variant.needs(written),
        file_needs=tflite_variant.file_needs(written),
        road=_road(source, TFLITE),
    )


def _same_graph(candidate: Candidate | None) -> bool:
    """Fine-tuned graphs come by roads of their own, so their names need not mean the same; pruned ones keep theirs."""
    return candidate is None or not candidate.graph.startswith(FINETUNED)


def _told(source: Original, rendition: Rendition | None) -> str:
    if rendition is None or source.framework == rendition.format:
        return source.path.name
    return f"the float {rendition.format} file by {rendition.road}"


def _road(source: Original, wanted: str) -> str:
    """Tell how a float file of another format came about; by counts, since names are lost there."""
    rendition = source.rendition(wanted)
    if rendition is None or source.framework == wanted:
        return ""
    told = f"{source.path.name} was converted by {rendition.road}"
    if source.framework != ONNX:
        return f"{told}; which of its layers became which operators is not known"
    counts = graph_of(onnx.load(source.runnable)).counts()
    return f"{told}; counts only, names are lost: it has {', '.join(f'{n} {kind}' for kind, n in counts.items())}"
