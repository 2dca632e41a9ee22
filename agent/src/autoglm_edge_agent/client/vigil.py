"""Whether to stay awake for what comes next, or to sleep until the kernel wakes us. No I/O and no clock.

To wake a processor takes longer than many a small model's run: tens of microseconds, on either side. Who waits awake
has its answer that much sooner where a processor is free, and takes it from those who work where none is. So both ways
are tried in turns, and then the one with the shorter waits is gone, as long as waits are short at all. Who expects a
longer one naps through the first half of it.
Sources: the Linux kernel's "halt polling" for virtual processors, which grows and shrinks by what it gains, and its
hybrid polling of block devices, which sleeps for half of the mean.
"""

from __future__ import annotations

import os

SHORT_S = 200e-6
"""Longer is not waited awake: what comes later is not much later for a sleeper."""
GAIN = 0.8
"""To be awake is worth while where it makes waits shorter than this share."""
ROUND = 64
TRIAL = 4
"""So many waits of each round are of the kind that is worse so far."""
_NEWEST = 0.125
"""Of the newest wait in the estimate."""
_TWICE = 2


def spare_processors() -> bool:
    """Tell whether others can work while one stays awake, and can be given way to."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return hasattr(os, "sched_yield") and (processors or 1) > 1


class Vigil:
    """Learns from how long the waits are. Times are in seconds of one monotonic clock.

    Args:
        possible: whether there is a processor for it.
        longest_s: what takes longer is slept through. Above `SHORT_S` only for who can nap.
    """

    def __init__(self, *, possible: bool = True, longest_s: float = SHORT_S) -> None:
        self._possible = possible
        self._longest_s = longest_s
        self._short_ones = 0
        self._count = 0
        self._awake = False
        self._since = 0.0
        self._asleep_s = self._awake_s = 0.0
        """Estimates of a wait."""

    def begin(self, now: float) -> float:
        """A wait begins: return until when to stay awake; `now` where it is better to sleep."""
        self._since = now
        self._awake = self._possible and self._short_ones >= _TWICE and self._choice()
        return now + self._longest_s if self._awake else now

    @property
    def nap_s(self) -> float:
        """How long to sleep before staying awake in the wait that has begun."""
        return self._awake_s / 2 if self._awake_s > SHORT_S else 0.0

    def end(self, now: float) -> None:
        """What was waited for is there."""
        waited_s = now - self._since
        if waited_s >= self._longest_s:
            self._short_ones = 0
            return
        if self._short_ones < _TWICE:
            self._short_ones += 1
            return
        self._count += 1
        if self._awake:
            self._awake_s += _NEWEST * (waited_s - self._awake_s)
        else:
            self._asleep_s += _NEWEST * (waited_s - self._asleep_s)

    def _choice(self) -> bool:
        better = self._awake_s < GAIN * self._asleep_s
        return better != (self._count % ROUND < TRIAL)
