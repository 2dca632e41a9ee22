from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.quality import EQUAL, FIDELITY, TOP1, OutputScore, Score
from autoglm_edge_converter.tolerance import FLOAT_MARGIN, INT8_MARGIN, LOOSEST_SQNR_DB, tolerances


def measured(metric: str, value: float, sqnr_db: float | None, finite: bool = True) -> Score:
    return Score((OutputScore("y", metric, value, sqnr_db, finite),), 16)


def test_identical_answers_still_leave_room_for_another_kernel() -> None:
    limits = tolerances(measured(TOP1, 1.0, None), FLOAT_MARGIN)
    assert limits is not None
    assert limits[0].min_sqnr_db == 50.0
    assert limits[0].min_top1_agreement == pytest.approx(15 / 16, abs=1e-3)


def test_int8_gets_what_it_measured_less_the_margin() -> None:
    limits = tolerances(measured(TOP1, 1.0, 30.0), INT8_MARGIN)
    assert limits is not None
    assert limits[0].min_sqnr_db == 27.0
    assert limits[0].min_top1_agreement == 0.875


@pytest.mark.parametrize(
    "score",
    [measured(TOP1, 1.0, 9.0), measured(FIDELITY, 0.5, 3.0), measured(TOP1, 1.0, 40.0, finite=False)],
    ids=["noisy", "noisier", "not finite"],
)
def test_a_variant_that_hides_damage_gets_none(score: Score) -> None:
    assert tolerances(score, INT8_MARGIN) is None


def test_integers_are_compared_by_equality() -> None:
    limits = tolerances(measured(EQUAL, 1.0, None), INT8_MARGIN)
    assert limits is not None
    assert (limits[0].min_sqnr_db, limits[0].min_equal) == (None, 0.875)


@given(st.floats(-10, 160), st.floats(0, 1))
def test_a_tolerance_is_met_by_what_was_measured_and_never_looser_than_the_loosest(
    sqnr_db: float, value: float
) -> None:
    limits = tolerances(measured(TOP1, value, sqnr_db), INT8_MARGIN)
    if limits is None:
        return
    limit = limits[0]
    assert limit.min_sqnr_db is not None
    assert limit.min_top1_agreement is not None
    assert LOOSEST_SQNR_DB - 0.001 <= limit.min_sqnr_db < sqnr_db
    assert limit.min_top1_agreement <= value
