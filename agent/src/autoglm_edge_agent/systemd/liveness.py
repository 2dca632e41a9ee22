"""Whether the agent is truly alive: each part says by when it acts again, and none is late.

A part that waits for something outside (a network, an order, the time of a probation) promises nothing. One that works
promises more than its own limits allow it to take, so that only what those limits did not end is late: a thread that
waits for a disk for ever, a process that cannot be killed, a defect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Pulse:
    """What one part promises."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.due_s: float | None = None
        """By when it is heard again, by its clock; None: it waits."""

    def within(self, seconds: float) -> None:
        """It is heard again within so many seconds."""
        self.due_s = self._clock() + seconds

    def rest(self) -> None:
        """It waits for something outside."""
        self.due_s = None


def late(due_s: Mapping[str, float | None], now_s: float) -> tuple[str, ...]:
    """Return the parts that have not kept their promise."""
    return tuple(name for name, due in due_s.items() if due is not None and due < now_s)
