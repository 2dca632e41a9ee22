"""Whether a road kept to the model: the float file against the original's own answers."""

from __future__ import annotations

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.original import Rendition
from autoglm_edge_converter.workbench import Workbench

LEAST_SQNR_DB = 60.0
"""Float arithmetic in another order keeps 90 dB and more; what loses more than this computes something else."""


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
