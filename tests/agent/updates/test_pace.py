from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_agent.updates.pace import RETRY_MAX_S, RETRY_S, WINDOW_FLOOR, WINDOW_MAX, WINDOW_MIN, Pace


def _over_line(round_trip_s: float, blocks_per_s: float, count: int) -> list[int]:
    """Let `count` blocks go over a line that keeps their order; returns the window after each."""
    now, free_at, pace = 0.0, 0.0, Pace(0.0, lambda: 1.0)
    windows: list[int] = []
    flying: list[tuple[float, int]] = []
    asked = 0
    while len(windows) < count:
        while len(flying) < pace.window:
            free_at = max(now + round_trip_s, free_at + 1 / blocks_per_s)
            flying.append((free_at, asked))
            pace.asked(asked, now)
            asked += 1
        now, block = flying.pop(0)
        pace.arrived(block, now)
        windows.append(pace.window)
    return windows


def test_a_long_line_is_filled() -> None:
    assert _over_line(round_trip_s=0.1, blocks_per_s=2000, count=400)[-1] == WINDOW_MAX


def test_a_quick_line_is_never_waited_for() -> None:
    assert _over_line(round_trip_s=0.0005, blocks_per_s=3000, count=400)[-1] == WINDOW_MAX


def test_a_narrow_line_keeps_the_window_small() -> None:
    assert max(_over_line(round_trip_s=0.005, blocks_per_s=20, count=400)) <= WINDOW_MIN + 1


def test_the_time_out_doubles_and_stays_until_a_block_is_in_time() -> None:
    pace, now = Pace(0.0, lambda: 1.0), 0.0
    waits = []
    for _ in range(6):
        pace.asked(1, now)
        waits.append(pace.retry_at - now)
        now = pace.retry_at
        pace.timed_out(now)
    assert waits == [2, 4, 8, 16, 30, 30]
    pace.arrived(1, now + 1)  # Karn: which of the requests this answers is not known
    assert pace.retry_at == now + 1 + RETRY_MAX_S
    pace.asked(2, now + 1)
    pace.arrived(2, now + 1.1)
    assert pace.retry_at == pytest.approx(now + 1.1 + RETRY_S)


def test_a_line_of_seconds_is_waited_for() -> None:
    pace = Pace(0.0, lambda: 1.0)
    for block in range(5):
        pace.asked(block, 10.0 * block)
        pace.arrived(block, 10.0 * block + 9)
    assert pace.retry_at > 49 + 9


def test_time_outs_halve_the_window_down_to_the_floor() -> None:
    pace = Pace(0.0, lambda: 1.0)
    windows = []
    for second in range(5):
        windows.append(pace.window)
        pace.timed_out(second)
    assert windows == [WINDOW_MIN, 8, 4, WINDOW_FLOOR, WINDOW_FLOOR]


def test_a_lost_connection_halves_the_window_and_begins_a_new_time_out() -> None:
    pace = Pace(0.0, lambda: 1.0)
    pace.timed_out(2.0)
    pace.lost(10.0)
    assert pace.window == 4
    assert pace.retry_at == 10 + RETRY_S


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 50), st.sampled_from(["ask", "come", "time-out"]))))
def test_the_window_and_the_timer_stay_within_bounds(events: list[tuple[int, float, str]]) -> None:
    pace, now = Pace(0.0, lambda: 1.0), 0.0
    for block, pause_s, event in events:
        now += pause_s
        if event == "ask":
            pace.asked(block, now)
        elif event == "come":
            pace.arrived(block, now)
        else:
            pace.timed_out(now)
        if event != "ask":
            assert pace.retry_at >= now + RETRY_S
        assert WINDOW_FLOOR <= pace.window <= WINDOW_MAX
