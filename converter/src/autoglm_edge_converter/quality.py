"""How well a variant does what the original does: one figure, and the parts behind it.

Every output has a natural metric: `top1-agreement` (fraction of rows with the original's largest entry) for
classification-like outputs, which are floats of [rows, classes] unless every row has length one (an embedding), or of
more axes when each row is a distribution; `fidelity` (1 - noise power / signal power, so that 0.99 is 20 dB, the mean
over the channels) for other floats; `equal` (fraction of equal elements) for the rest.

The figure is that of a task's metric where one is known (accuracy, boxes, a user's own, ...: see `metrics`), else that
of the worst output. The drop is what is lost of the original's figure on the same samples, as a fraction of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics import noise
from autoglm_edge_converter.metrics.noise import Slice
from autoglm_edge_converter.metrics.rows import EQUAL, FIDELITY, TOP1, equal_shares, metric_of, top1_shares
from autoglm_edge_converter.metrics.shares import Figure, Shares
from autoglm_edge_converter.tensors import Array
from autoglm_edge_protocol import golden

__all__ = [
    "EQUAL",
    "FIDELITY",
    "TOP1",
    "Figure",
    "Labels",
    "OutputScore",
    "Score",
    "Slice",
    "TaskMetric",
    "metric_of",
    "score",
]

Labels = Sequence[Array]
"""What is true of each sample: one array per sample, [rows] of class numbers for `accuracy`."""


class TaskMetric(Protocol):
    """Judges all outputs of a model together."""

    @property
    def name(self) -> str:
        """What the figure is, as the manifest and the report write it."""

    def figure(self, references: Answers, answers: Answers, labels: Labels | None, intervals: bool) -> Figure:
        """Compare with the original; `intervals` asks for a confidence interval, which may cost time."""


@dataclass(frozen=True)
class OutputScore:
    """One output against the original over some samples."""

    output: str
    metric: str
    value: float
    sqnr_db: float | None
    """None where identical, or not a floating-point output."""
    finite: bool
    worst_slice: Slice | None = None
    """The noisiest channel; None where all are identical, or there are none."""


@dataclass(frozen=True)
class Score:
    """All outputs against the original over some samples."""

    outputs: tuple[OutputScore, ...]
    samples: int
    figure: Figure | None = None
    """Of the whole model; None: the worst output's value."""

    @property
    def worst(self) -> OutputScore:
        """The output with the lowest value; among equals the noisiest."""
        return min(self.outputs, key=lambda score: (score.value, _noise_free_last(score.sqnr_db)))

    @property
    def metric(self) -> str:
        """What `value` is."""
        return self.figure.metric if self.figure else self.worst.metric

    @property
    def value(self) -> float:
        """In the metric's own terms, more is better; 0.0 where any output is NaN or of another shape."""
        if not self.finite:
            return 0.0
        return self.figure.value if self.figure else self.worst.value

    @property
    def baseline(self) -> float:
        """What the original reaches on the same samples."""
        return self.figure.baseline if self.figure else 1.0

    @property
    def drop(self) -> float:
        """What was lost, as a fraction of the original's figure; 1.0 where an output is not finite."""
        if not self.finite:
            return 1.0
        return self.figure.drop if self.figure else 1.0 - self.worst.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of `value`; None where it was not asked for."""
        if self.figure is None or self.figure.low is None or self.figure.high is None or not self.finite:
            return None
        return self.figure.low, self.figure.high

    @property
    def finite(self) -> bool:
        """False: some output holds NaN or infinity where the original does not, or has another shape."""
        return all(score.finite for score in self.outputs)

    @property
    def sqnr_db(self) -> float | None:
        """Of the noisiest output; None where all are identical."""
        known = [score.sqnr_db for score in self.outputs if score.sqnr_db is not None]
        return min(known) if known else None

    @property
    def slice_sqnr_db(self) -> float | None:
        """Of the noisiest channel of any output; None where all are identical or there are no channels."""
        known = [score.worst_slice.sqnr_db for score in self.outputs if score.worst_slice is not None]
        return min(known) if known else None

    @property
    def rank(self) -> tuple[float, float]:
        """Orders scores, the better one greater: the smaller drop first, then the noise."""
        return -self.drop, _noise_free_last(self.sqnr_db)


def _noise_free_last(sqnr_db: float | None) -> float:
    return math.inf if sqnr_db is None else sqnr_db


def score(
    names: Sequence[str],
    references: Answers,
    answers: Answers,
    labels: Labels | None = None,
    task: TaskMetric | None = None,
    intervals: bool = False,
) -> Score:
    """Compare answers with the original's, output by output, and by the task's metric where there is one.

    `references`, `answers` and `labels` hold one entry per sample, in the same order. `intervals` adds the confidence
    interval of the figure: wanted for what is reported, a waste of time in a search.
    """
    found = []
    for number, name in enumerate(names):
        expected = [sample[number] for sample in references]
        found.append(_score_output(name, expected, [sample[number] for sample in answers]))
    scores = tuple(entry for entry, _ in found)
    plain = Score(scores, len(references))
    if not plain.finite:
        return plain
    if task is not None:
        return Score(scores, len(references), task.figure(references, answers, labels, intervals))
    shares = found[scores.index(plain.worst)][1]
    low, high = shares.interval() if intervals and len(references) else (None, None)
    return Score(scores, len(references), Figure(plain.metric, plain.value, 1.0, low, high))


def _score_output(name: str, references: Sequence[Array], outputs: Sequence[Array]) -> tuple[OutputScore, Shares]:
    metric = metric_of(references)
    if not noise.agree_where_finite(references, outputs):
        empty = np.zeros((len(references), 1))
        return OutputScore(name, metric, 0.0, None, finite=False), Shares(empty, empty)
    if metric == EQUAL:
        shares = equal_shares(references, outputs)
        return OutputScore(name, metric, shares.value, None, finite=True), shares
    axis = noise.channel_axis(references)
    powers = noise.powers(references, outputs, axis)
    worst = noise.worst_slice(*powers, axis)
    shares = top1_shares(references, outputs) if metric == TOP1 else noise.fidelity(*powers)
    total_db = golden.sqnr_db(*(float(power.sum()) for power in powers))
    return OutputScore(name, metric, shares.value, total_db, finite=True, worst_slice=worst), shares
