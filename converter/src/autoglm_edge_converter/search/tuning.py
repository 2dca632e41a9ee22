"""Tuning the ranges of a few activations end to end: one coordinate at a time, kept where the answers get less noisy.

Rounding errors that later operators forget (a GELU after a large negative range, a maximum over many positions) are
invisible to any rule that looks at one tensor alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from autoglm_edge_converter.recipes import Candidate, Tuned

SHRINK = (0.8, 0.6, 0.4, 0.25)
"""Factors on an end of a range, tried in turn."""

LEAST_GAIN_DB = 0.1

Noise = Callable[[Sequence[Candidate]], Sequence[float]]
"""Signal to noise of the answers of each candidate in dB, on the samples of sensitivity; -inf where it failed."""


def tune(candidate: Candidate, tensors: Sequence[str], noise: Noise, out_of_time: Callable[[], bool]) -> Candidate:
    """Return the candidate with the ranges of the tensors given scaled to the least noise found."""
    best = candidate
    (level,) = noise([best])
    for tensor in tensors:
        for end in ("high", "low"):
            if out_of_time():
                return best
            options = [_scaled(best, tensor, end, factor) for factor in SHRINK]
            levels = noise(options)
            top = max(range(len(options)), key=lambda index: levels[index])
            if levels[top] > level + LEAST_GAIN_DB:
                best, level = options[top], levels[top]
    return best


def _scaled(candidate: Candidate, tensor: str, end: str, factor: float) -> Candidate:
    others = tuple(entry for entry in candidate.tuned if entry.tensor != tensor)
    mine = next((entry for entry in candidate.tuned if entry.tensor == tensor), Tuned(tensor))
    changed = replace(mine, low=factor) if end == "low" else replace(mine, high=factor)
    return replace(candidate, tuned=(*others, changed))
