"""From what each sample contributes to one figure with a 95 % confidence interval.

Every built-in metric is a ratio of sums over the samples, hits / trials, so the same two intervals serve all: Wilson's
score interval for one trial a sample (E. B. Wilson, "Probable inference, the law of succession, and statistical
inference", J. Am. Stat. Assoc. 22, 1927), else the percentile bootstrap over whole samples (B. Efron, "Bootstrap
methods", Ann. Stat. 7, 1979), because the rows of one sample are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Z_95 = 1.959964
RESAMPLES = 1000
_CHUNK = 64


@dataclass(frozen=True)
class Figure:
    """One metric of a model over some samples; more is better."""

    metric: str
    value: float
    baseline: float = 1.0
    """What the original reaches on the same samples: 1 for an agreement, its own accuracy where there are labels."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % confidence interval of `value`; None where not asked for."""

    @property
    def drop(self) -> float:
        """What was lost, as a fraction of the original's figure; negative where the variant is better.

        The difference itself where the original's figure is zero.
        """
        lost = self.baseline - self.value
        return lost / abs(self.baseline) if abs(self.baseline) > 1e-12 else lost


@dataclass(frozen=True)
class Shares:
    """Hits and trials, float64 [samples, parts]: the value is the mean over the parts of sum(hits) / sum(trials).

    A metric has one part, but for those that judge each channel by itself.
    """

    hits: Floats
    trials: Floats
    counted: bool = True
    """False: trials are powers, not numbers of decisions."""

    @property
    def value(self) -> float:
        """Between 0 and 1; 1 where there was nothing to hit."""
        return float(_ratio(self.hits.sum(axis=0), self.trials.sum(axis=0)))

    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % confidence interval of `value`."""
        samples = len(self.hits)
        if self.counted and bool((self.trials == 1).all()):
            return wilson(float(self.hits.sum()), samples)
        low, high = bootstrap(lambda rows: _ratio(self.hits[rows].sum(axis=1), self.trials[rows].sum(axis=1)), samples)
        if self.counted and low == high:
            # Resampling equal samples tells nothing: each sample then stands for one decision.
            return wilson(self.value * samples, samples)
        return low, high


def _ratio(hits: Floats, trials: Floats) -> Floats:
    """[..., parts] -> [...]."""
    empty = trials <= 0
    ratios = np.where(empty, np.where(hits < 0, 0.0, 1.0), hits / np.where(empty, 1.0, trials))
    return np.asarray(np.clip(ratios, 0.0, 1.0).mean(axis=-1), np.float64)


def wilson(hits: float, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a fraction; (0, 1) for no trials."""
    if trials <= 0:
        return 0.0, 1.0
    fraction = hits / trials
    scale = 1 + Z_95**2 / trials
    centre = (fraction + Z_95**2 / (2 * trials)) / scale
    half = Z_95 * math.sqrt(fraction * (1 - fraction) / trials + Z_95**2 / (4 * trials**2)) / scale
    return max(0.0, min(fraction, centre - half)), min(1.0, max(fraction, centre + half))


def bootstrap(
    value_of: Callable[[npt.NDArray[np.int64]], Floats], samples: int, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of a statistic over resampled samples.

    `value_of` takes indices, int64 [resamples, samples], and gives one value for each row.
    """
    choice = np.random.default_rng(seed)
    found = [
        value_of(choice.integers(0, samples, (min(_CHUNK, resamples - start), samples)))
        for start in range(0, resamples, _CHUNK)
    ]
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return float(low), float(high)
