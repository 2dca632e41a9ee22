"""What workers tell of the models that serve: counted for probation, and remembered of the model before. No I/O."""

from __future__ import annotations

from collections import deque

from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.updates.probation import Baseline, Evidence, Readings
from autoglm_edge_protocol.deployment import Installed

REMEMBERED_S = 300.0
"""How far the memory of a serving model goes back: one such window, and the one before it."""
SUSTAINED = 3
"""Readings that must all be too high."""


class Observation:
    """Counts what was seen since it was last asked."""

    def __init__(self) -> None:
        self._new: dict[Installed, Evidence] = {}
        self._remembered: dict[Installed, tuple[float, Evidence, Evidence]] = {}
        """When the window began, the window, and the one before."""
        self._memory_bytes: deque[int] = deque(maxlen=SUSTAINED)
        self._temperature_c: deque[float] = deque(maxlen=SUSTAINED)
        self.watched: Installed | None = None
        """The bundle that is counted for."""

    def watch(self, installed: Installed) -> None:
        """Begin to count for this bundle; what was counted before is forgotten."""
        self.watched = installed
        self._new = {}
        self._memory_bytes.clear()
        self._temperature_c.clear()

    def beat(self, installed: Installed, beat: Beat, now: float) -> None:
        """Count what a serving worker answered; `now` in monotonic seconds."""
        seen = Evidence(requests=beat.requests, errors=beat.errors, run=beat.run)
        self._remember(installed, seen, now)
        if installed == self.watched:
            self._count(installed, seen)
            self._memory_bytes.append(beat.rss_bytes)

    def shadow_beat(self, beat: Beat) -> None:
        """Count what the shadow compared with the model that is watched."""
        if self.watched is not None:
            self._count(self.watched, Evidence(compared=beat.compared, differed=beat.differed))

    def crashed(self, installed: Installed) -> None:
        """Count a worker that ended by itself."""
        if installed == self.watched:
            self._count(installed, Evidence(crashes=1))

    def warmth(self, temperature_c: float | None) -> None:
        """Note how warm the board is."""
        if temperature_c is not None:
            self._temperature_c.append(temperature_c)

    def take(self, installed: Installed) -> Evidence:
        """Return what was counted since the last call."""
        return self._new.pop(installed, Evidence())

    def readings(self) -> Readings:
        """Return the least of the last readings, where there are enough."""
        return Readings(
            min(self._memory_bytes) if len(self._memory_bytes) == SUSTAINED else None,
            min(self._temperature_c) if len(self._temperature_c) == SUSTAINED else None,
        )

    def baseline(self, installed: Installed | None, temperature_c: float | None) -> Baseline:
        """Return how a model did in the last minutes."""
        if installed is None or installed not in self._remembered:
            return Baseline(temperature_c=temperature_c)
        _, present, before = self._remembered[installed]
        seen = before.plus(present)
        return Baseline(
            requests=seen.requests,
            errors=seen.errors,
            runs=seen.run.count,
            run_us=seen.run.quantile(0.5),
            temperature_c=temperature_c,
        )

    def _count(self, installed: Installed, seen: Evidence) -> None:
        self._new[installed] = self._new.get(installed, Evidence()).plus(seen)

    def _remember(self, installed: Installed, seen: Evidence, now: float) -> None:
        began, present, before = self._remembered.get(installed, (now, Evidence(), Evidence()))
        if now - began >= REMEMBERED_S:
            began, present, before = now, Evidence(), present
        # One other at most: while a model takes over, the one before it still finishes what it accepted.
        others = [item for item in self._remembered.items() if item[0] != installed]
        self._remembered = dict([*others[-1:], (installed, (began, present.plus(seen), before))])
