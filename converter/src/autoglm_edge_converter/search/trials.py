"""What the search works with: trials, sensitivities, and when a trial is good enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from autoglm_edge_converter.quality import FIDELITY, Score
from autoglm_edge_converter.recipes import Candidate


class Stage(Enum):
    """The parts of a search that take time, in their order."""

    TUNE = "tune"
    RANK = "rank"
    CLIMB = "climb"


@dataclass(frozen=True)
class Trial:
    """A candidate and what came of it: a score on the search samples, or the problem that it had."""

    candidate: Candidate
    score: Score | None
    size_bytes: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Sensitivity:
    """How much noise one node alone brings when quantized; None: none at all, or it could not be built."""

    node: str
    operator: str
    sqnr_db: float | None
    value: float
    problem: str | None = None

    @property
    def noise(self) -> float:
        """Noise power as a share of the signal's; infinite where the node cannot be quantized at all."""
        if self.problem is not None:
            return math.inf
        return 0.0 if self.sqnr_db is None else 10 ** (-self.sqnr_db / 10)


@dataclass(frozen=True)
class SearchResult:
    """The 8-bit candidate found, None where no one was within the budget, and everything that was tried."""

    found: Trial | None
    trials: tuple[Trial, ...]
    sensitivities: tuple[Sensitivity, ...] = ()
    out_of_time: bool = False
    """The time budget ended the search before it had tried all that it would have."""

    def choosing(self, found: Trial | None) -> SearchResult:
        """Return the same with another candidate as the one found."""
        return replace(self, found=found)


def joined(results: Sequence[SearchResult]) -> SearchResult:
    """Return several searches as one."""
    return SearchResult(
        found=next((result.found for result in results if result.found is not None), None),
        trials=tuple(trial for result in results for trial in result.trials),
        sensitivities=tuple(entry for result in results for entry in result.sensitivities),
        out_of_time=any(result.out_of_time for result in results),
    )


def within(trial: Trial, max_drop: float) -> bool:
    """Tell whether a trial ran and keeps the budget, in whole samples: of 93 samples and 1 %, one may be lost.

    Only whether it is worth judging depends on that: the acceptance samples are held to the budget as it is.
    """
    score = trial.score
    if score is None or not score.finite:
        return False
    # The allowance is for the division that made the fraction.
    half_a_sample = 0.0 if score.metric == FIDELITY or score.samples < 1 else 0.5 / score.samples
    return score.drop <= max_drop + max(half_a_sample, 1e-9)


def safe(trial: Trial, max_drop: float, errors: float = 2.0) -> bool:
    """Tell whether a trial keeps the budget with so many standard errors to spare.

    The best of several trials looks better on the samples that ranked it than it is; two standard errors (97 % one
    sided) make it likely that samples held back agree.
    """
    score = trial.score
    return score is not None and score.finite and score.drop + errors * standard_error(score) <= max_drop + 1e-9


@dataclass(frozen=True)
class Demand:
    """What a trial has to reach on the search samples."""

    max_drop: float
    least_sqnr_db: float = -math.inf
    """Of the worst output. Where every sample is answered right already, noise alone tells candidates apart."""

    def met(self, trial: Trial) -> bool:
        """Tell whether a trial keeps the budget, and its answers are that clear."""
        return within(trial, self.max_drop) and self.is_clear(trial)

    def safely_met(self, trial: Trial) -> bool:
        """Tell whether samples held back are likely to agree."""
        return safe(trial, self.max_drop) and self.is_clear(trial)

    def is_clear(self, trial: Trial) -> bool:
        """Tell whether a trial's answers are clear enough; none has more than an answer without noise."""
        return trial.score is not None and (trial.score.sqnr_db is None or trial.score.sqnr_db >= self.least_sqnr_db)


def standard_error(score: Score) -> float:
    """Return the standard error of the drop, from what one sample tells.

    For a share it is binomial; rows of one sample are not independent, so samples are what counts. Noise power
    varies over samples about as much as it is large.
    """
    share = min(1.0, max(0.0, score.drop))
    if score.samples < 1:
        return share
    if score.metric == FIDELITY:
        return share / math.sqrt(score.samples)
    return math.sqrt(share * (1 - share) / score.samples)


def by_quality(trial: Trial) -> tuple[float, float]:
    """Order trials, the better one greater. Drops that differ by chance alone are told apart by their noise."""
    score = trial.score
    if score is None or not score.finite:
        return -math.inf, 0.0
    coarse = max(0.0, score.drop) / max(standard_error(score), 1 / max(1, score.samples), 1e-3)
    return -float(math.floor(coarse)), math.inf if score.sqnr_db is None else score.sqnr_db


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial of the best quality, the first among equals; None where none ran."""
    ran = [trial for trial in trials if trial.score is not None and trial.score.finite]
    return max(ran, key=by_quality, default=None)
