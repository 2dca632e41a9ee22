from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.metrics.shares import Figure, Shares, wilson


def counted(hits: Sequence[float], trials: Sequence[float]) -> Shares:
    return Shares(np.array(hits, float)[:, None], np.array(trials, float)[:, None])


def test_wilson_gives_the_published_ends() -> None:
    # 81 of 263: the worked example of Newcombe, Statistics in Medicine 17 (1998), table I: 0.2553 to 0.3662.
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    # 0 of 20 in the same table: 0 to 0.1611.
    assert round(wilson(0, 20)[1], 4) == 0.1611


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_fraction_and_is_symmetric(hits: int, trials: int) -> None:
    hits = min(hits, trials)
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1
    other = wilson(trials - hits, trials)
    assert (1 - other[1], 1 - other[0]) == pytest.approx((low, high))


def test_one_decision_a_sample_is_wilson_and_many_are_resampled() -> None:
    single = counted([1] * 90 + [0] * 10, [1] * 100)
    assert single.interval() == wilson(90, 100)
    choice = np.random.default_rng(0)
    rows = counted(choice.binomial(50, 0.9, 100).tolist(), [50] * 100)
    low, high = rows.interval()
    assert low < rows.value < high
    # 5,000 independent decisions: the interval is near that of the binomial, 0.9 +- 0.0083; 1.5 covers resampling.
    assert high - low == pytest.approx(2 * 0.0083, rel=0.5)
    assert rows.interval() == (low, high), "the seed is fixed"


def test_equal_samples_do_not_feign_certainty() -> None:
    low, high = counted([50] * 20, [50] * 20).interval()
    assert (low, high) == wilson(20, 20)
    assert low < 0.9


def test_nothing_to_hit_is_perfect_and_noise_over_silence_is_not() -> None:
    assert counted([0, 0], [0, 0]).value == 1.0
    assert Shares(np.array([[-1.0]]), np.array([[0.0]]), counted=False).value == 0.0


def test_a_drop_is_relative_to_the_original() -> None:
    assert Figure("accuracy", 0.45, 0.5).drop == pytest.approx(0.1)
    assert Figure("accuracy", 0.55, 0.5).drop == pytest.approx(-0.1)
    assert Figure("loss", -0.2, 0.0).drop == pytest.approx(0.2)
    assert Figure("loss", -2.2, -2.0).drop == pytest.approx(0.1)
