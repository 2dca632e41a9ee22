from __future__ import annotations

from autoglm_edge_protocol.backoff import Backoff

PAUSES = Backoff(2.0, 300.0)


def test_pauses_double_up_to_a_bound() -> None:
    assert [PAUSES.pause_s(attempt, 1.0) for attempt in range(4)] == [2.0, 4.0, 8.0, 16.0]
    assert PAUSES.pause_s(10_000, 1.0) == 300.0


def test_those_who_failed_at_once_do_not_try_again_at_once() -> None:
    assert PAUSES.pause_s(5, 0.0) == PAUSES.pause_s(5, 1.0) / 2
    drawn = {PAUSES.pause_s(5) for _ in range(100)}
    assert len(drawn) > 90
    assert all(32.0 <= pause_s <= 64.0 for pause_s in drawn)
