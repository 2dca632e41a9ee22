"""A model that came in half or double precision: whether its form in single precision is the same model.

It is what is converted, where it answers as the file does that was given; otherwise that file is, as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autoglm_edge_converter.errors import CandidateFailed, ModelDoesNotRun
from autoglm_edge_converter.original import Original
from autoglm_edge_converter.workbench import Workbench

LEAST_SQNR_DB = 30.0
"""Sums in half precision leave 40 dB and more in deep networks; what leaves less is no rounding."""

Open = Callable[[Original], Workbench]
"""Runs the original on every sample. Raises ModelDoesNotRun, and what else it raises goes on to the caller."""


def open_in_single_precision(source: Original, open_workbench: Open) -> Workbench:
    """Open a workbench, in single precision where that is the same model; the notes say which, and how near it is."""
    if source.as_given is None:
        return open_workbench(source)
    try:
        return _compared(open_workbench(source))
    except ModelDoesNotRun as error:
        bench = open_workbench(source.as_it_came())
        stay = f"the weights stay in {source.precision}, of which nothing is quantized, as in float32 {error}"
        return replace(bench, notes=(*bench.notes, stay))


def _compared(bench: Workbench) -> Workbench:
    """Say how near the answers are to those of the file that was given. Raises ModelDoesNotRun where they are not."""
    given, precision = bench.source.as_given, bench.source.precision
    assert given is not None
    said = f"the weights came in {precision} and are computed in float32"
    alone = replace(bench.source, as_given=None)
    try:
        found = bench.compare(given, bench.check_samples)
    except CandidateFailed as error:
        return replace(bench, source=alone, notes=(*bench.notes, f"{said}: {precision} does not run here ({error})"))
    if not found.finite:
        overflows = f"{said}: in {precision} the model gives NaN, infinity or another shape"
        return replace(bench, source=alone, notes=(*bench.notes, overflows))
    if found.sqnr_db is not None and found.sqnr_db < LEAST_SQNR_DB:
        raise ModelDoesNotRun(f"it answers otherwise, {found.sqnr_db:.0f} dB in {found.worst.output!r}")
    near = "the same answers" if found.sqnr_db is None else f"{found.sqnr_db:.0f} dB from the answers in {precision}"
    return replace(bench, notes=(*bench.notes, f"{said}: {near}"))
