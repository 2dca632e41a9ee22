"""Whether a road kept to the model: the float file against the original's own answers."""

from __future__ import annotations

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.original import Original, Rendition
from autoglm_edge_converter.workbench import Workbench

_LEAST_SQNR_DB = 60.0
"""Float arithmetic in another order keeps 90 dB and more; what loses more than this computes something else."""

_LEAST_OF_HALVES_DB = 30.0
"""The original's own rounding to 11 bits, or 8, leaves 40 dB and more of it in deep networks."""


def least_sqnr_db(source: Original) -> float:
    """Return how far a float file may be from the original's answers."""
    return _LEAST_OF_HALVES_DB if source.precision in ("float16", "bfloat16") else _LEAST_SQNR_DB


def check_rendition(bench: Workbench, rendition: Rendition) -> str | None:
    """Return what is wrong with a float file on a few samples, None where nothing is."""
    assert rendition.path is not None
    # What was put in single precision was compared before, by the metric (see `given_precision`).
    if rendition.path in (bench.original, bench.source.single):
        return None
    try:
        found = bench.compare(rendition.path, bench.check_samples)
    except CandidateFailed as error:
        return f"the float file does not run: {error}"
    if not found.finite:
        return "the float file gives NaN, infinity or another shape where the original does not"
    least_db = least_sqnr_db(bench.source)
    if found.sqnr_db is not None and found.sqnr_db < least_db:
        return (
            f"the float file computes something else: {found.sqnr_db:.1f} dB to the original in {found.worst.output}, "
            f"at least {least_db:g} are expected"
        )
    return None
