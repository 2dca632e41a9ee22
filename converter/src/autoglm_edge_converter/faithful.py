"""Whether what is converted is the model: the float file of a road, or of another precision, against the original."""

from __future__ import annotations

from dataclasses import replace

from autoglm_edge_converter.errors import CandidateFailed, ModelDoesNotRun
from autoglm_edge_converter.original import Rendition
from autoglm_edge_converter.workbench import Workbench

LEAST_SQNR_DB = 60.0
"""Float arithmetic in another order keeps 90 dB and more; what loses more than this computes something else."""

LEAST_AS_GIVEN_DB = 30.0
"""Sums in half precision leave 40 dB and more in deep networks; what leaves less is no rounding."""


def check_rendition(bench: Workbench, rendition: Rendition) -> str | None:
    """Return what is wrong with a float file on a few samples, None where nothing is."""
    assert rendition.path is not None
    if rendition.path == bench.original:
        return None
    try:
        found = bench.compare(rendition.path, bench.check_samples)
    except CandidateFailed as error:
        return f"the float file does not run: {error}"
    if not found.finite:
        return "the float file gives NaN, infinity or another shape where the original does not"
    if found.sqnr_db is not None and found.sqnr_db < LEAST_SQNR_DB:
        return (
            f"the float file computes something else: {found.sqnr_db:.1f} dB to the original in {found.worst.output}, "
            f"at least {LEAST_SQNR_DB:g} are expected"
        )
    return None


def compared_as_given(bench: Workbench) -> Workbench:
    """Compare with the answers in the precision that the original came in; the notes then say how near they are.

    Raises ModelDoesNotRun where they are not near.
    """
    given, precision = bench.source.as_given, bench.source.precision
    if given is None:
        return bench
    said = f"the weights came in {precision} and are computed in float32"
    alone = replace(bench.source, as_given=None)
    try:
        found = bench.compare(given, bench.check_samples)
    except CandidateFailed as error:
        return replace(bench, source=alone, notes=(*bench.notes, f"{said}: {precision} does not run here ({error})"))
    if not found.finite:
        overflows = f"{said}: in {precision} the model gives NaN, infinity or another shape"
        return replace(bench, source=alone, notes=(*bench.notes, overflows))
    if found.sqnr_db is not None and found.sqnr_db < LEAST_AS_GIVEN_DB:
        raise ModelDoesNotRun(
            f"{bench.source.path} answers otherwise when its {precision} is computed in float32, "
            f"{found.sqnr_db:.0f} dB in {found.worst.output!r}: export it in float32"
        )
    near = "the same answers" if found.sqnr_db is None else f"{found.sqnr_db:.0f} dB from the answers in {precision}"
    return replace(bench, notes=(*bench.notes, f"{said}: {near}"))
