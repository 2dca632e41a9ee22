"""How well a variant does what the original does, as one figure between 0 and 1 and the parts behind it.

Every output has a metric that suits it: `top1-agreement` (fraction of rows with the original's largest entry) for
classification-like outputs, which are floats of [rows, classes], or of more axes when each row is a distribution;
`fidelity` (1 - noise power / signal power, so that 0.99 is 20 dB) for other floats; `equal` (fraction of equal
elements) for the rest. A model's value is that of its worst output, and a drop is 1 - value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.tensors import Array
from autoglm_edge_protocol import golden

TOP1, FIDELITY, EQUAL = "top1-agreement", "fidelity", "equal"


@dataclass(frozen=True)
class OutputScore:
    """One output against the original over some samples."""

    output: str
    metric: str
    value: float
    sqnr_db: float | None
    """None where identical, or not a floating-point output."""
    finite: bool


@dataclass(frozen=True)
class Score:
    """All outputs against the original over some samples."""

    outputs: tuple[OutputScore, ...]
    samples: int

    @property
    def worst(self) -> OutputScore:
        """The output with the lowest value; among equals the noisiest."""
        return min(self.outputs, key=lambda score: (score.value, _noise_free_last(score.sqnr_db)))

    @property
    def metric(self) -> str:
        """What `value` is."""
        return self.worst.metric

    @property
    def value(self) -> float:
        """1.0 would be the original; 0.0 where any output is NaN or of another shape."""
        return self.worst.value if self.finite else 0.0

    @property
    def drop(self) -> float:
        """What was lost of the metric."""
        return 1.0 - self.value

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
    def rank(self) -> tuple[float, float]:
        """Orders scores, the better one greater: the value first, then the noise."""
        return self.value, _noise_free_last(self.sqnr_db)


def _noise_free_last(sqnr_db: float | None) -> float:
    return math.inf if sqnr_db is None else sqnr_db


def metric_of(references: Sequence[Array]) -> str:
    """Return the metric that suits one output, seen from the original's answers."""
    first = references[0]
    if not np.issubdtype(first.dtype, np.floating):
        return EQUAL
    if first.ndim < 2 or first.shape[-1] < 2 or first.size == 0:
        return FIDELITY
    return TOP1 if first.ndim == 2 or _is_distribution(first) else FIDELITY


def _is_distribution(rows: Array) -> bool:
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1.0, atol=1e-3))


def score(names: Sequence[str], references: Answers, answers: Answers) -> Score:
    """Compare answers with the original's, output by output. Both hold one tuple per sample, in the same order."""
    scores = []
    for number, name in enumerate(names):
        expected = [sample[number] for sample in references]
        scores.append(_score_output(name, expected, [sample[number] for sample in answers]))
    return Score(tuple(scores), len(references))


def _score_output(name: str, references: Sequence[Array], outputs: Sequence[Array]) -> OutputScore:
    agreement = golden.compare(references, outputs)
    metric = metric_of(references)
    if metric == TOP1:
        value = agreement.top1_agreement or 0.0
    elif metric == FIDELITY:
        value = 1.0 if agreement.sqnr_db is None else max(0.0, 1 - 10 ** (-agreement.sqnr_db / 10))
    else:
        value = agreement.equal
    return OutputScore(name, metric, value if agreement.finite else 0.0, agreement.sqnr_db, agreement.finite)
