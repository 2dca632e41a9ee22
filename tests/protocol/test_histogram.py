from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoglm_edge_protocol.histogram import RELATIVE_ERROR, Histogram, HistogramRecorder, merge

# The logarithm of a value next to a bucket's edge may be rounded into the next bucket: a few units in the last place.
TOLERANCE = RELATIVE_ERROR * (1 + 1e-9)

values = st.lists(st.floats(1, 1e12), min_size=1, max_size=200)


def _record(recorded: Sequence[float]) -> Histogram:
    recorder = HistogramRecorder()
    for value in recorded:
        recorder.record(value)
    return recorder.take()


@given(values, st.floats(0, 1))
def test_quantiles_keep_the_relative_error(recorded: list[float], q: float) -> None:
    found = _record(recorded).quantile(q)
    exact = sorted(recorded)[math.floor(q * (len(recorded) - 1))]
    assert found is not None
    assert abs(found - exact) <= TOLERANCE * exact


@given(values)
def test_quantiles_grow_and_end_at_the_largest(recorded: list[float]) -> None:
    histogram = _record(recorded)
    found = [histogram.quantile(q / 10) or 0.0 for q in range(11)]
    assert found == sorted(found)
    assert found[-1] <= histogram.max_us == max(recorded)


@given(values, values, values)
def test_merging_is_recording_together_in_any_grouping(a: list[float], b: list[float], c: list[float]) -> None:
    ha, hb, hc = _record(a), _record(b), _record(c)
    together = _record([*a, *b, *c])
    for merged in (merge([ha, merge([hb, hc])]), merge([merge([ha, hb]), hc]), merge([hc, ha, hb])):
        assert (merged.count, merged.max_us, merged.buckets) == (together.count, together.max_us, together.buckets)
        assert merged.sum_us == pytest.approx(together.sum_us)  # sums of doubles depend on their order


def test_nothing_recorded() -> None:
    assert HistogramRecorder().take().quantile(0.5) is None
    assert merge([]) == Histogram()


def test_sums_that_no_clock_measures_are_merged() -> None:
    claimed = Histogram(count=1, sum_us=1.7e308, max_us=1.7e308, buckets={1100: 1})
    assert math.isfinite(merge([claimed, claimed]).sum_us)


def test_taking_begins_anew() -> None:
    recorder = HistogramRecorder()
    recorder.record(5)
    assert recorder.take().count == 1
    assert recorder.take().count == 0


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-300, math.inf, -math.inf, math.nan, 1e308])
def test_what_no_clock_measures_is_counted_within_bounds(value: float) -> None:
    histogram = _record([value, 100.0])
    assert histogram.count == 2
    assert Histogram.model_validate_json(histogram.model_dump_json(), strict=True) == histogram
    assert math.isfinite(histogram.quantile(1.0) or math.nan)


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 1, "buckets": {}},
        {"count": 1, "buckets": {5: 2}},
        {"count": 1, "buckets": {1101: 1}},
        {"count": 1, "buckets": {-1: 1}},
        {"count": 0, "buckets": {1: 1, 2: -1}},
        {"count": 0, "sum_us": math.inf},
        {"count": 0, "max_us": math.nan},
    ],
)
def test_histograms_that_nobody_recorded(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Histogram.model_validate(fields)
