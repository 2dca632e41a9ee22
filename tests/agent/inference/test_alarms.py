"""An alarm whose deadline moves, on a clock that the test turns: it rings at the last deadline and at no other time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_agent.inference.alarms import Alarm


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Time and timers of an event loop."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self.timers, (at, next(self._numbers), timer))
        return timer

    def turn(self, seconds: float) -> None:
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            at, _, timer = heapq.heappop(self.timers)
            self.now = max(self.now, at)
            if timer.call is not None:
                timer.call()
        self.now = until


DO = st.tuples(st.sampled_from(["within", "off", "turn"]), st.integers(1, 50))


@given(steps=st.lists(DO, max_size=60))
def test_it_rings_once_at_the_last_deadline(steps: list[tuple[str, int]]) -> None:
    loop, rung = Loop(), list[float]()
    alarm = Alarm(cast(asyncio.AbstractEventLoop, loop), lambda: rung.append(loop.now))
    deadline: float | None = None
    expected: list[float] = []
    for what, number in steps:
        if what == "within":
            alarm.within(number)
            deadline = loop.now + number
        elif what == "off":
            alarm.off()
            deadline = None
        else:
            if deadline is not None and deadline <= loop.now + number:
                expected.append(deadline)
                deadline = None
            loop.turn(number)
        assert rung == expected
    alarm.cancel()
    loop.turn(1000)
    assert rung == expected
