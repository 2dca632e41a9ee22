from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoglm_edge_converter.metrics.noise import agree_where_finite, channel_axis, fidelity, powers, worst_slice
from autoglm_edge_converter.quality import score
from autoglm_edge_protocol import golden


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 64, 7, 7), 1),
        ((1, 84, 8400), 1),
        ((1, 25200, 85), 2),
        ((1, 10), 1),
        ((1, 1), None),
        ((5,), None),
        ((1, 1, 8, 8), None),
        ((1, 20, 20), 2),
    ],
)
def test_the_axis_of_channels(shape: tuple[int, ...], axis: int | None) -> None:
    assert channel_axis([np.zeros(shape)]) == axis


def test_an_axis_that_changes_its_length_is_not_of_channels() -> None:
    assert channel_axis([np.zeros((1, 5, 30)), np.zeros((1, 7, 30))]) == 2


def test_the_worst_channel_is_named_and_weighs_as_much_as_any() -> None:
    reference = np.ones((1, 4, 100), np.float32) * np.array([1000, 1000, 1000, 0.1], np.float32)[:, None]
    output = reference.copy()
    output[0, 3] = 0
    pair = powers([reference], [output], 1)
    worst = worst_slice(*pair, 1)
    assert worst is not None
    assert (worst.axis, worst.index, worst.sqnr_db) == (1, 3, 0.0)
    assert fidelity(*pair).value == pytest.approx(0.75)


def test_channels_that_are_always_zero_are_passed_over() -> None:
    reference = np.zeros((1, 2, 10), np.float32)
    reference[0, 0] = 1
    pair = powers([reference], [reference + np.float32(0.1)], 1)
    worst = worst_slice(*pair, 1)
    assert worst is not None
    assert worst.index == 0


FLOATS = hnp.arrays(np.float32, (2, 3, 5), elements=st.floats(-1e6, 1e6, width=32))


@given(FLOATS)
def test_identical_is_perfect(array: np.ndarray) -> None:
    pair = powers([array], [array], 1)
    assert fidelity(*pair).value == 1.0
    assert worst_slice(*pair, 1) is None


@given(FLOATS, FLOATS)
def test_a_slice_is_never_better_than_the_best_nor_the_figure_out_of_bounds(one: np.ndarray, other: np.ndarray) -> None:
    pair = powers([one], [other], 1)
    assert 0 <= fidelity(*pair).value <= 1


ANY = hnp.arrays(np.float32, (1, 4), elements=st.floats(width=32))


@given(ANY, ANY)
def test_a_score_is_what_a_device_would_find(one: np.ndarray, other: np.ndarray) -> None:
    """The converter computes noise in its own, faster way; both must mean the same."""
    agreement = golden.compare([one], [other])
    assert agree_where_finite([one], [other]) == agreement.finite
    found = score(["y"], ((one,),), ((other,),)).outputs[0]
    if agreement.finite:
        assert (found.sqnr_db is None) == (agreement.sqnr_db is None)
        # The order of sums differs: parts in 1e-12 of the powers, far below the 0.001 dB to which limits are rounded.
        assert found.sqnr_db == pytest.approx(agreement.sqnr_db, abs=1e-6)


def test_outputs_of_text_can_be_compared() -> None:
    words = np.array([["a", "b"]], dtype=object)
    assert score(["y"], ((words,),), ((np.array([["a", "c"]], dtype=object),),)).value == 0.5
