"""A selector that waits awake for a moment where the next event is expected at once."""

from __future__ import annotations

import os
import selectors
import time

from autoglm_edge_agent.client.vigil import Vigil, spare_processors


class AwakeSelector(selectors.DefaultSelector):
    """For a thread of its own, or for its event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._vigil = Vigil(possible=spare_processors())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        now = time.perf_counter()
        until = self._vigil.begin(now)
        if timeout is not None:
            until = min(until, now + timeout)
        events: list[tuple[selectors.SelectorKey, int]] = []
        while not events and now < until:
            events = super().select(0.0)
            if not events:
                os.sched_yield()
            now = time.perf_counter()
        if not events:
            events = super().select(timeout)
        self._vigil.end(time.perf_counter())
        return events
