"""Making the float variant: pass after pass, each kept only if the model still answers as before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.explain.graph import Graph, graph_of
from autoglm_edge_converter.passes import INSTEAD, Pass
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.source import opset_of
from autoglm_edge_converter.targets import NEWEST_OPSET

LEAST_SQNR_DB = 70.0
"""A float rewrite may reorder sums, which leaves 100 dB and more in single precision; 70 allows for deep networks."""

Check = Callable[[onnx.ModelProto], Score]
"""Runs a graph on a few samples and compares with the one that was given. Raises CandidateFailed."""


@dataclass(frozen=True)
class PassOutcome:
    """What became of one pass; `dropped` says why it was not kept."""

    name: str
    dropped: str | None = None
    graph: Graph | None = None
    """The graph after it, for those who follow operators through the passes."""


def optimise(
    proto: onnx.ModelProto,
    passes: Mapping[str, Pass],
    check: Check,
    done: Callable[[PassOutcome], None],
    newest_opset: int = NEWEST_OPSET,
) -> onnx.ModelProto:
    """Apply the passes, in order, and report each. The model given is not changed.

    None is kept that needs a newer operator set than `newest_opset`.
    """
    best = _copy(proto)
    for name, rewrite in passes.items():
        candidate, problem = _attempt(best, rewrite, check, newest_opset)
        for gentler in INSTEAD.get(name, ()):
            if candidate is None:
                candidate, _ = _attempt(best, gentler, check, newest_opset)
        if candidate is not None:
            best = candidate
        done(PassOutcome(name, problem, graph_of(best)))
    return best


def _attempt(
    proto: onnx.ModelProto, rewrite: Pass, check: Check, newest_opset: int
) -> tuple[onnx.ModelProto | None, str | None]:
    try:
        candidate = rewrite(_copy(proto))
    except Exception as error:
        # Converters raise anything from ValueError to the errors of their C++ half; the reason goes to the report.
        return None, f"failed: {(str(error) or type(error).__name__).strip().splitlines()[0][:200]}"
    opset = opset_of(candidate)
    if opset > max(newest_opset, opset_of(proto)):
        return None, f"needs operator set {opset}, the targets read up to {newest_opset}"
    problem = None if candidate == proto else _changes(candidate, check)
    return (candidate, None) if problem is None else (None, problem)


def _changes(candidate: onnx.ModelProto, check: Check) -> str | None:
    """Return what is wrong with a rewritten model, None where it answers as before."""
    try:
        found = check(candidate)
    except CandidateFailed as error:
        return f"its result does not run: {error}"
    if not found.finite:
        return "its result gives NaN or another shape"
    if found.sqnr_db is not None and found.sqnr_db < LEAST_SQNR_DB:
        return f"changes the answers ({found.sqnr_db:.0f} dB, at least {LEAST_SQNR_DB:.0f} wanted)"
    if found.value < 1.0 and found.metric == "equal":
        return f"changes the answers ({found.value:.2%} equal)"
    return None


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
