"""Choosing the golden set: few samples, small, and sensitive: half of them near a border of the original's decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.measure import FP32
from autoglm_edge_converter.quality import TOP1, metric_of
from autoglm_edge_converter.results import Measured
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.tolerance import FLOAT_MARGIN, INT8_MARGIN, tolerances
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol.golden import GoldenSample
from autoglm_edge_protocol.manifest import Tolerance

ON_THE_BORDER = 0.05
"""A gap of less than this part of a row's spread: there another CPU's rounding may decide, and noise is most of what is
left to measure. Samples near a border, but not on it, tell damage from rounding."""


@dataclass(frozen=True)
class GoldenLimits:
    """How large a golden set may grow: it travels to every device with every variant."""

    samples: int = 16
    size_bytes: int = 2 * 1024 * 1024


def choose_golden(
    answers: Sequence[Sequence[Array]], sample_bytes: Sequence[int], limits: GoldenLimits = GoldenLimits()
) -> tuple[int, ...]:
    """Return positions into `answers` (the original's, one tuple per sample), ascending; never empty.

    Every second one is the next nearest to a decision border but not on it (where there are no classes: the next
    strongest answer, since noise under silence tells nothing), the others are spread evenly over the rest.
    `sample_bytes` is what each sample costs in the file, inputs and outputs together.
    """
    count = min(limits.samples, len(answers))
    borders = _telling(answers)[: count // 2]
    rest = sorted(set(range(len(answers))) - set(borders))
    spread = [rest[index * len(rest) // (count - len(borders))] for index in range(count - len(borders))]
    chosen: list[int] = []
    size_bytes = 0
    for position in _alternate(spread, borders):
        size_bytes += sample_bytes[position]
        if chosen and size_bytes > limits.size_bytes:
            break
        chosen.append(position)
    return tuple(sorted(chosen))


def _telling(answers: Sequence[Sequence[Array]]) -> list[int]:
    """Return the positions whose answers show damage best, those first."""
    margins = [margin(answer) for answer in answers]
    if not all(map(math.isinf, margins)):
        off = [position for position, gap in enumerate(margins) if gap >= ON_THE_BORDER]
        return sorted(off, key=lambda position: (margins[position], position))
    shares = _power_shares(answers)
    return sorted(range(len(answers)), key=lambda position: (-shares[position], position))


def _power_shares(answers: Sequence[Sequence[Array]]) -> list[float]:
    """Return the share that each sample has of the power of an output over all samples, of its weakest output."""
    powers = np.array([[_power(array) for array in answer] for answer in answers], np.float64)
    totals = powers.sum(axis=0)
    return [float(share) for share in (powers / np.where(totals > 0, totals, 1.0)).min(axis=1, initial=1.0)]


def _power(array: Array) -> float:
    return float(np.square(np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)).sum())


def _alternate(first: Sequence[int], second: Sequence[int]) -> list[int]:
    order: list[int] = []
    for index in range(max(len(first), len(second))):
        order.extend([*first[index : index + 1], *second[index : index + 1]])
    return order


def margin(outputs: Sequence[Array]) -> float:
    """Return how far a sample is from another top answer: the gap between the two largest entries, mean over the rows.

    Relative to the spread of a row; the least of the outputs, infinity where none is classification-like.
    """
    gaps = [_mean_gap(array) for array in outputs if metric_of([array]) == TOP1]
    return min(gaps, default=float("inf"))


def _mean_gap(array: Array) -> float:
    rows = np.sort(array.reshape(-1, array.shape[-1]).astype(np.float64), axis=1)
    spread = rows[:, -1] - rows[:, 0]
    return float(np.mean((rows[:, -1] - rows[:, -2]) / np.where(spread > 0, spread, 1.0)))


def golden_samples(bench: Workbench, golden: Sequence[int]) -> tuple[GoldenSample, ...]:
    """Return the golden set: what applications give, and what they see of the original's answers.

    Raises CandidateFailed.
    """
    names = [port.name for port in bench.applications[0]]
    feeds = [bench.feeds[index] for index in golden]
    return tuple(
        GoldenSample(tuple(feed[name] for name in names), outputs)
        for feed, outputs in zip(feeds, bench.golden_answers(golden), strict=True)
    )


def golden_positions(bench: Workbench) -> tuple[int, ...]:
    """Return indices of the golden samples, chosen once for all variants, by the original's answers alone.

    They come from the acceptance part: nothing was tuned on it, and it may refuse a variant.
    """
    part = bench.parts.acceptance
    sizes = [sum(array.nbytes for array in (*bench.feeds[index].values(), *bench.references[index])) for index in part]
    positions = choose_golden(tuple(bench.references[index] for index in part), sizes)
    return tuple(part[position] for position in positions)


def tolerances_of(item: Measured, bench: Workbench, golden: Sequence[int]) -> tuple[Tolerance, ...] | None:
    """Return a variant's tolerance for each output on the golden samples; None where damage could not be told.

    Raises CandidateFailed.
    """
    margin = FLOAT_MARGIN if item.precision == FP32 and not item.pruning else INT8_MARGIN
    return tolerances(bench.score_golden(item.answering, golden), margin)
