"""A model that came in half or double precision: whether its form in single precision is the same model.

Where it answers as the file does that was given, that form is what variants are made of; otherwise the file is, as it
came. Every variant is compared with the answers of the file, or, where no runtime here computes it, of the form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx

from autoglm_edge_converter.errors import BrokenWeights, CandidateFailed, ModelDoesNotRun
from autoglm_edge_converter.faithful import least_sqnr_db
from autoglm_edge_converter.original import ONNX, Original
from autoglm_edge_converter.single_precision import PRECISIONS, SINGLE, in_single_precision, precision_of
from autoglm_edge_converter.workbench import Workbench

MOST_DROP = 0.01
"""What the form may lose of the quality figure."""

Open = Callable[[Original], Workbench]
"""Runs an original on every sample. Raises ModelDoesNotRun, BrokenWeights; what else it raises the caller gets."""


def in_single_precision_too(source: Original, scratch: Path) -> Original:
    """Put the ONNX rendition in single precision in the place of one that came in another. Raises OSError."""
    rendition = source.rendition(ONNX)
    if rendition is None or rendition.path is None:
        return source
    proto = onnx.load(rendition.path)
    kind = precision_of(proto)
    if kind == SINGLE:
        return source
    source = replace(source, precision=PRECISIONS[kind])
    try:
        rewritten = in_single_precision(proto, kind)
    except ValueError as error:
        return replace(source, notes=(*source.notes, _stays(source, str(error))))
    single = scratch / "single.onnx"
    single.write_bytes(rewritten.SerializeToString(deterministic=True))
    renditions = tuple(replace(one, path=single) if one is rendition else one for one in source.renditions)
    return replace(source, renditions=renditions, single=single, came=rendition.path)


def _stays(source: Original, why: str) -> str:
    return f"the weights came in {source.precision} and stay so, nothing of them is quantized: {why}"


def open_in_single_precision(source: Original, open_workbench: Open) -> Workbench:
    """Open a workbench for a model, in single precision where that is the same one; the notes say which it is.

    Raises what `open_workbench` raises.
    """
    if source.single is None:
        return open_workbench(source)
    came = f"the weights came in {source.precision}"
    try:
        bench = open_workbench(source)
    except (ModelDoesNotRun, BrokenWeights) as error:
        if source.framework != ONNX:
            raise  # what is single there is not the original, only a rendition of it
        try:
            bench = open_workbench(replace(source, runnable=source.single))
        except (ModelDoesNotRun, BrokenWeights):
            raise error from None
        return _noted(bench, f"{came} and are computed in float32, and so is what variants are compared with: {error}")
    problem = _problem(bench)
    if problem is not None:
        return _noted(_as_it_came(bench), _stays(source, f"in float32 {problem}"))
    return _noted(bench, f"{came} and are computed in float32")


def _noted(bench: Workbench, note: str) -> Workbench:
    return replace(bench, notes=(note, *bench.notes))


def _problem(bench: Workbench) -> str | None:
    """Return how the form in single precision differs on the samples that rank, None where it does not."""
    assert bench.source.single is not None
    try:
        found = bench.score(bench.source.single, bench.sensitivity_samples)
    except CandidateFailed as error:
        return f"the model does not run ({error})"
    if not found.finite:
        return "it gives NaN, infinity or another shape"
    if found.drop > MOST_DROP:
        return f"it loses {found.drop:.1%} of {found.metric}"
    # Where a metric judges the task, noise may be nothing but the order of equals.
    if bench.task is None and found.sqnr_db is not None and found.sqnr_db < least_sqnr_db(bench.source):
        return f"it answers otherwise ({found.sqnr_db:.0f} dB in {found.worst.output!r})"
    return None


def _as_it_came(bench: Workbench) -> Workbench:
    source = bench.source
    renditions = tuple(
        replace(entry, path=source.came) if entry.path == source.single else entry for entry in source.renditions
    )
    return replace(bench, source=replace(source, single=None, renditions=renditions))
