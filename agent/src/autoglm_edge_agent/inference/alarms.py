"""Deadlines that move with almost everything that happens, for the price of a look at the clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """Rings when the last deadline that it was given has passed. For one event loop.

    A timer is set once and looks again when it fires, as most deadlines move before that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rings: Callable[[], None]) -> None:
        self._loop = loop
        self._rings = rings
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def within(self, seconds: float) -> None:
        """Let it ring in so many seconds, and not when it was to ring before."""
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._fires_at:
            self._set(self._deadline)

    def off(self) -> None:
        """Let it not ring."""
        self._deadline = math.inf

    def cancel(self) -> None:
        """Be done with it."""
        self.off()
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = at
        self._timer = self._loop.call_at(at, self._fires)

    def _fires(self) -> None:
        self._timer, self._fires_at = None, math.inf
        if self._loop.time() >= self._deadline:
            self._rings()
        elif self._deadline < math.inf:
            self._set(self._deadline)
