from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_agent.updates.allowance import Allowance, QuietHours

BLOCK = 65_536


@given(st.integers(1024, 10_000_000), st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_more_is_asked_for_than_the_cap_and_one_burst(rate: int, pauses: list[float]) -> None:
    allowance, now, asked = Allowance(rate, 0.0), 0.0, 0
    for pause_s in pauses:
        now += pause_s
        blocks = allowance.blocks(BLOCK, now)
        assert blocks is not None
        allowance.spend(blocks * BLOCK)
        asked += blocks * BLOCK
        assert asked <= rate * now + max(rate, BLOCK) + 1


@given(st.integers(1024, 10_000_000))
def test_it_is_never_waited_for_longer_than_needed(rate: int) -> None:
    allowance = Allowance(rate, 0.0)
    assert allowance.blocks(BLOCK, 0.0) == 0
    wait_s = allowance.wait_s(BLOCK)
    assert allowance.blocks(BLOCK, wait_s + 0.001) in (1, int(max(rate, BLOCK) // BLOCK))


def test_without_a_cap_any_number_may_be_asked_for() -> None:
    allowance = Allowance(None, 0.0)
    allowance.spend(10**12)
    assert allowance.unlimited
    assert allowance.blocks(BLOCK, 1.0) is None
    assert allowance.wait_s(BLOCK) == 0


@pytest.mark.parametrize(
    ("hours", "at", "quiet"),
    [
        ("08:00-18:30", "08:00", True),
        ("08:00-18:30", "18:29", True),
        ("08:00-18:30", "18:30", False),
        ("08:00-18:30", "07:59", False),
        ("22:00-06:00", "23:59", True),
        ("22:00-06:00", "00:00", True),
        ("22:00-06:00", "06:00", False),
        ("22:00-06:00", "12:00", False),
    ],
)
def test_hours_over_midnight_too(hours: str, at: str, quiet: bool) -> None:
    assert QuietHours.parse(hours).contain(datetime.time.fromisoformat(at)) is quiet
    assert str(QuietHours.parse(hours)) == hours


@pytest.mark.parametrize("text", ["", "8-18", "08:00", "24:00-01:00", "08:60-09:00", "08:00-08:00", "08:00-09:00 "])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match=r"span|no time"):
        QuietHours.parse(text)
