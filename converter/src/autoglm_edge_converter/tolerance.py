"""How far a variant may be from the original on the golden set: what it measured, less a stated margin.

The margin covers what another CPU's kernels change (another order of sums in float, saturating or rounding 8-bit
products). It never covers damage: a variant whose tolerance would have to be looser than `LOOSEST_SQNR_DB` has none,
and is not shipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoglm_edge_converter.quality import EQUAL, TOP1, OutputScore, Score
from autoglm_edge_protocol.manifest import Tolerance

LOOSEST_SQNR_DB = 8.0
"""At this the noise has 16 % of the signal's power; scaling one layer by half leaves 6 dB."""


@dataclass(frozen=True)
class Margin:
    """What is taken off the measured figures."""

    sqnr_db: float
    """Subtracted. 3 dB is twice the noise power."""
    most_sqnr_db: float
    """Never ask for more than this, however exact the variant was here."""
    agreement: float
    """Fraction of rows that may get another top answer, or of elements that may differ."""


FLOAT_MARGIN = Margin(sqnr_db=20.0, most_sqnr_db=50.0, agreement=1 / 16)
"""Float kernels differ by the order of sums, and accelerators may round to 10 bits of mantissa (TF32: about 60 dB)."""

INT8_MARGIN = Margin(sqnr_db=3.0, most_sqnr_db=40.0, agreement=1 / 8)
"""Half of the golden samples lie near a border; a quarter of those may fall to the other side on another CPU."""


def tolerances(measured: Score, margin: Margin) -> tuple[Tolerance, ...] | None:
    """Return a tolerance per output from a variant's score on the golden set.

    None: an output is so far from the original that a damaged model could not be told from it.
    """
    found = tuple(_tolerance(output, margin) for output in measured.outputs)
    return None if any(entry is None for entry in found) else tuple(entry for entry in found if entry is not None)


def _tolerance(score: OutputScore, margin: Margin) -> Tolerance | None:
    if not score.finite:
        return None
    if score.metric == EQUAL:
        return Tolerance(output=score.output, min_equal=_rounded(max(0.0, score.value - margin.agreement)))
    measured = math.inf if score.sqnr_db is None else score.sqnr_db
    least_db = min(measured - margin.sqnr_db, margin.most_sqnr_db)
    if least_db < LOOSEST_SQNR_DB:
        return None
    top1 = _rounded(max(0.0, score.value - margin.agreement)) if score.metric == TOP1 else None
    return Tolerance(output=score.output, min_sqnr_db=_rounded(least_db), min_top1_agreement=top1)


def _rounded(value: float) -> float:
    """Down to three digits, so that the figure in the manifest reads well and is never stricter than meant."""
    return math.floor(value * 1000) / 1000
