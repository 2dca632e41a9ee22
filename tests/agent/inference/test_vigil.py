"""Whether to wait awake: learned from the waits themselves, with a clock that the test turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_agent.client.vigil import ROUND, SHORT_S, TRIAL, Vigil


class Waits:
    """Waits that last so long for one who sleeps, and so long for one who is awake."""

    def __init__(self, asleep_s: float, awake_s: float, *, possible: bool = True, longest_s: float = SHORT_S) -> None:
        self.vigil = Vigil(possible=possible, longest_s=longest_s)
        self.now = 1000.0
        self.asleep_s, self.awake_s = asleep_s, awake_s
        self.wasted_s = 0.0

    def wait(self) -> bool:
        """Wait once; return whether awake."""
        until = self.vigil.begin(self.now)
        awake = until > self.now
        lasts_s = self.awake_s if awake else self.asleep_s
        self.wasted_s += min(lasts_s, until - self.now)
        self.now += lasts_s
        self.vigil.end(self.now)
        return awake

    def share(self, count: int) -> float:
        """Return the share of waits that were awake."""
        return sum(self.wait() for _ in range(count)) / count


def test_the_shorter_waits_are_gone() -> None:
    waits = Waits(asleep_s=80e-6, awake_s=20e-6)
    waits.share(4 * ROUND)
    assert waits.share(10 * ROUND) >= 1 - TRIAL / ROUND


def test_being_awake_is_given_up_where_it_takes_the_processor_from_those_who_work() -> None:
    waits = Waits(asleep_s=80e-6, awake_s=150e-6)
    waits.share(4 * ROUND)
    assert waits.share(10 * ROUND) <= TRIAL / ROUND
    waits.awake_s = 20e-6  # there is a free processor now
    waits.share(8 * ROUND)
    assert waits.share(10 * ROUND) >= 1 - TRIAL / ROUND


def test_long_waits_are_slept_through() -> None:
    waits = Waits(asleep_s=0.03, awake_s=0.03)
    assert waits.share(1000) == 0.0


def test_never_where_no_processor_is_to_spare() -> None:
    assert Waits(asleep_s=80e-6, awake_s=20e-6, possible=False).share(1000) == 0.0


def test_who_expects_a_longer_wait_naps_through_half_of_it() -> None:
    waits = Waits(asleep_s=700e-6, awake_s=500e-6, longest_s=1e-3)
    waits.share(4 * ROUND)
    assert waits.share(10 * ROUND) >= 1 - TRIAL / ROUND
    assert 0.9 * 250e-6 <= waits.vigil.nap_s <= 250e-6
    short = Waits(asleep_s=150e-6, awake_s=100e-6, longest_s=1e-3)
    short.share(4 * ROUND)
    assert short.vigil.nap_s == 0.0, "a nap could take longer than the wait"


# Not the limit itself, on whose sides a sum of numbers falls as it likes.
@given(waits=st.lists(st.floats(1e-6, 0.999 * SHORT_S) | st.floats(1.001 * SHORT_S, 1.0), max_size=300))
def test_no_wait_is_awake_for_longer_than_the_limit_and_none_after_a_long_one(waits: list[float]) -> None:
    vigil, now, long_ago = Vigil(), 0.0, 0
    for lasts_s in waits:
        until = vigil.begin(now)
        assert now <= until <= now + SHORT_S * 1.0001
        assert until == now or long_ago >= 2, "after a long wait two short ones come first"
        now += lasts_s
        vigil.end(now)
        long_ago = 0 if lasts_s >= SHORT_S else long_ago + 1
