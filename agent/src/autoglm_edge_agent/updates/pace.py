"""How many blocks a device may have asked for at once, and how long it bears silence. Pure.

The window follows TCP Vegas (Brakmo and Peterson 1995): a block that takes much longer than the quickest one waits in
a queue somewhere, so the window grows while few wait, and shrinks while many do. On a long line that is nearly as wide
as the line is long; on a narrow one it stays small. A queue that is through in a moment delays nobody, whatever its
length: on a quick line the window grows all the same, so that neither end waits for the other.

The time-out follows RFC 6298, with Karn's rule: an answer to a request that was made twice says nothing about the time
it takes, and the doubled time-out stays until one is in time.
"""

from __future__ import annotations

from collections.abc import Callable

WINDOW_MIN = 16
WINDOW_MAX = 64
WINDOW_FLOOR = 2
"""Where time-outs and lost connections may bring the window: a line that loses much or takes seconds for a block, a
broker that ends connections with more than a few blocks in its buffer."""
RETRY_S = 2.0
"""The shortest silence after which blocks are asked for again; a shorter one makes storms of duplicates."""
RETRY_MAX_S = 30.0
"""The longest, unless blocks are known to take longer than that."""
_FEW_WAIT, _MANY_WAIT = 4.0, 8.0
_MOMENT_S = 0.03


class Pace:
    """The window and the timer of one transfer.

    Args:
        now: monotonic seconds.
        jitter: returns a factor around 1 by which a retry is delayed, so that devices do not ask in step.
    """

    def __init__(self, now: float, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._window = float(WINDOW_MIN)
        self._asked_at: dict[int, float] = {}
        self._asked_again: set[int] = set()
        self._quickest_s = float("inf")
        self._mean_s: float | None = None
        self._deviation_s = 0.0
        self._timeout_s = RETRY_S
        self.retry_at = now + RETRY_S
        """When what is outstanding counts as lost."""

    @property
    def window(self) -> int:
        """How many blocks may be outstanding."""
        return int(self._window)

    def asked(self, block: int, now: float) -> None:
        """Note that a block is asked for."""
        if block in self._asked_again:
            return
        if block in self._asked_at:
            self._asked_again.add(block)
        self._asked_at[block] = now

    def progressed(self, now: float, patience_s: float = 0.0) -> None:
        """Note that something has come; the next may take as long as it is known to take, or `patience_s` if longer."""
        self.retry_at = now + max(self._timeout_s, patience_s)

    def arrived(self, block: int, now: float) -> None:
        """Note that a block has come; its time counts when it was asked for once."""
        asked_at = self._asked_at.pop(block, None)
        if asked_at is not None and block not in self._asked_again:
            self._measured(max(1e-6, now - asked_at))
        self._asked_again.discard(block)
        self.progressed(now)

    def timed_out(self, now: float) -> None:
        """Note that nothing came in time: half the window, twice the time."""
        self._window = max(WINDOW_FLOOR, self._window / 2)
        self._timeout_s = max(self._timeout_s, min(RETRY_MAX_S, 2 * self._timeout_s))
        self.retry_at = now + self._timeout_s * self._jitter()

    def forget(self) -> None:
        """Forget what was asked for: when it comes says nothing about the line."""
        self._asked_at.clear()
        self._asked_again.clear()

    def lost(self, now: float) -> None:
        """Note that the connection was lost, maybe because too much was asked for: half the window."""
        self._window = max(WINDOW_FLOOR, self._window / 2)
        self.forget()
        self._timeout_s = RETRY_S
        self.retry_at = now + RETRY_S

    def _measured(self, taken_s: float) -> None:
        if self._mean_s is None:
            self._mean_s, self._deviation_s = taken_s, taken_s / 2
        else:
            self._deviation_s += (abs(self._mean_s - taken_s) - self._deviation_s) / 4
            self._mean_s += (taken_s - self._mean_s) / 8
        self._timeout_s = max(RETRY_S, self._mean_s + 4 * self._deviation_s)
        self._quickest_s = min(self._quickest_s, taken_s)
        waiting = self._window * (1 - self._quickest_s / taken_s)
        if waiting < _FEW_WAIT or taken_s - self._quickest_s < _MOMENT_S:
            self._window = min(WINDOW_MAX, self._window + 1)
        elif waiting > _MANY_WAIT and self._window > WINDOW_MIN:
            self._window = max(WINDOW_MIN, self._window - 1 / self._window)
