"""Feeds the service manager's watchdog, from the event loop and only while no part is late.

A loop that no longer turns feeds nothing, and what is late is fed nothing for: either way the manager ends the agent,
takes its stacks and starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from autoglm_edge_agent.systemd.liveness import Pulse, late
from autoglm_edge_agent.systemd.notify import Notifier

log = logging.getLogger(__name__)

FEEDS = 4
"""How often in the time after which the manager acts: one feed may be late."""
UNWATCHED_S = 60.0
"""In the place of that time where nobody watches."""


class Watchdog:
    """Watches the pulses of the agent's parts, by name; keeps the status line up to date as it goes."""

    def __init__(
        self,
        notifier: Notifier,
        pulses: Mapping[str, Pulse],
        status: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier = notifier
        self._pulses = pulses
        self._status = status
        self._clock = clock
        self._late: tuple[str, ...] = ()

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            self.look()
            await asyncio.sleep((self._notifier.watchdog_s or UNWATCHED_S) / FEEDS)

    def look(self) -> None:
        """Feed it once if no part is late."""
        self._notifier.status(self._status())
        parts = late({name: pulse.due_s for name, pulse in self._pulses.items()}, self._clock())
        if parts and parts != self._late:
            log.error("no sign of life from %s: the service manager is told nothing more", ", ".join(parts))
        self._late = parts
        if not parts and self._notifier.watchdog_s is not None:
            self._notifier.alive()
