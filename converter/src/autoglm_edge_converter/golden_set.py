"""Choosing the golden set: few samples, small, and sensitive: half of them near a border of the original's decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.quality import TOP1, metric_of
from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol.golden import GoldenSample


@dataclass(frozen=True)
class GoldenLimits:
    """How large a golden set may grow: it travels to every device with every variant."""

    samples: int = 16
    size_bytes: int = 2 * 1024 * 1024


def choose_golden(
    answers: Sequence[Sequence[Array]], sample_bytes: Sequence[int], limits: GoldenLimits = GoldenLimits()
) -> tuple[int, ...]:
    """Return positions into `answers` (the original's, one tuple per sample), ascending; never empty.

    Every second one is the next nearest to a decision border, the others are spread evenly over the rest.
    `sample_bytes` is what each sample costs in the file, inputs and outputs together.
    """
    nearest = sorted(range(len(answers)), key=lambda position: (margin(answers[position]), position))
    count = min(limits.samples, len(answers))
    borders = nearest[: count // 2]
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


def _alternate(first: Sequence[int], second: Sequence[int]) -> list[int]:
    order: list[int] = []
    for index in range(max(len(first), len(second))):
        order.extend([*first[index : index + 1], *second[index : index + 1]])
    return order


def margin(outputs: Sequence[Array]) -> float:
    """Return how far a sample is from another top answer: the least gap between the two largest entries of a row.

    Relative to the spread of the row; infinity where no output is classification-like.
    """
    gaps = [_row_gap(array) for array in outputs if metric_of([array]) == TOP1]
    return min(gaps, default=float("inf"))


def _row_gap(array: Array) -> float:
    rows = np.sort(array.reshape(-1, array.shape[-1]).astype(np.float64), axis=1)
    spread = rows[:, -1] - rows[:, 0]
    return float(np.min((rows[:, -1] - rows[:, -2]) / np.where(spread > 0, spread, 1.0)))


def golden_samples(names: Sequence[str], feeds: Sequence[Feed], answers: Answers) -> tuple[GoldenSample, ...]:
    """Return the golden set of the samples given, inputs in the order of `names`."""
    return tuple(
        GoldenSample(tuple(feed[name] for name in names), outputs) for feed, outputs in zip(feeds, answers, strict=True)
    )


def golden_positions(bench: Workbench, among: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return indices of the golden samples; they come from the held-back part, which nothing was tuned on.

    `among` narrows that part to some of its samples, one at least.
    """
    held_back = bench.parts.evaluation if among is None else among
    sizes = [
        sum(array.nbytes for array in (*bench.feeds[index].values(), *bench.references[index])) for index in held_back
    ]
    positions = choose_golden(tuple(bench.references[index] for index in held_back), sizes)
    return tuple(held_back[position] for position in positions)
