"""A latency histogram that can be merged and keeps a stated relative error.

Logarithmic buckets after Masson, Rim and Lee, "DDSketch" (VLDB 2019): a value v falls into bucket
ceil(log_gamma(v)), gamma = (1 + a) / (1 - a), and every quantile read back is within a relative error of a = 2 %.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator

from autoglm_edge_protocol.documents import Part

RELATIVE_ERROR = 0.02
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_UNSORTED = 1024
_LOG_GAMMA = math.log(_GAMMA)
_MAX_BUCKET = 1100
_MAX_US = _GAMMA**1100
"""gamma ** 1100 microseconds is over 500,000 years: no measured time lies above, and memory stays bounded."""


class Histogram(Part):
    """Counts by bucket. Values are positive, in microseconds; values under 1 count as 1."""

    count: int = Field(default=0, ge=0)
    sum_us: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_us: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    buckets: dict[Annotated[int, Field(ge=0, le=_MAX_BUCKET)], Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, max_length=_MAX_BUCKET + 1
    )

    @model_validator(mode="after")
    def _counts_add_up(self) -> Histogram:
        if sum(self.buckets.values()) != self.count:
            raise ValueError("the counts of the buckets do not add up to the count")
        return self

    def quantile(self, q: float) -> float | None:
        """Return the value in microseconds below which a fraction `q` (0 to 1) lies, None when empty."""
        if self.count == 0:
            return None
        rank = q * (self.count - 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen > rank:
                return min(2 * _GAMMA**bucket / (_GAMMA + 1), self.max_us) if self.max_us else None
        return self.max_us


class HistogramRecorder:
    """Collects values and hands them over as a Histogram.

    To record costs next to nothing: values are kept as they come, and sorted into buckets once there are many.
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._buckets: dict[int, int] = {}
        self._sum_us = 0.0
        self._max_us = 0.0

    def record(self, value_us: float) -> None:
        """Count one value in microseconds; what is no number counts as 1."""
        self._values.append(value_us)
        if len(self._values) >= _UNSORTED:
            self._sort()

    def take(self) -> Histogram:
        """Return what was recorded since the last call, and begin anew."""
        self._sort()
        taken = Histogram(
            count=sum(self._buckets.values()), sum_us=self._sum_us, max_us=self._max_us, buckets=self._buckets
        )
        self._buckets, self._sum_us, self._max_us = {}, 0.0, 0.0
        return taken

    def _sort(self) -> None:
        values, self._values = self._values, []
        for value_us in values:
            value = min(max(1.0, value_us), _MAX_US)
            bucket = min(_MAX_BUCKET, math.ceil(math.log(value) / _LOG_GAMMA))
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
            self._sum_us += value
            self._max_us = max(self._max_us, value)


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Return the histogram of all values of `histograms` together."""
    buckets: dict[int, int] = {}
    total, maximum = 0.0, 0.0
    for histogram in histograms:
        total += histogram.sum_us
        maximum = max(maximum, histogram.max_us)
        for bucket, count in histogram.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    # A sender may claim any finite sum; a sum of two such must stay finite, too.
    total = min(total, sys.float_info.max)
    return Histogram(count=sum(buckets.values()), sum_us=total, max_us=maximum, buckets=buckets)
