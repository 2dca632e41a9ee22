"""A second worker that has loaded the model and waits: when the serving one dies, it takes over at once.

It costs the memory of the model once more, so it is asked for (`[inference] standby`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.errors import WorkerError
from autoglm_edge_agent.inference.process import WorkerProcess
from autoglm_edge_protocol.deployment import Installed

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Between a worker that began to serve and the start of its stand-in, and after one that could not be started."""
MOST_FAILURES = 3


class Standby:
    """Keeps one worker ready for what serves now.

    `start` gives a worker that has loaded a bundle; raises WorkerError.
    """

    def __init__(self, start: Callable[[Installed], Awaitable[WorkerProcess]], *, wanted: bool) -> None:
        self._start = start
        self.wanted = wanted
        self._ready: WorkerProcess | None = None
        self._preparing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that waits, None where none does."""
        ready = self._ready
        return ready.pid if ready is not None and not ready.ended.done() else None

    def keep(self, installed: Installed | None) -> None:
        """Have a worker ready for this bundle, or for none; returns at once."""
        if not self.wanted:
            return
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = asyncio.ensure_future(self._prepare(installed))

    def take(self, installed: Installed) -> WorkerProcess | None:
        """Return the worker that is ready for this bundle, if there is one: it is the caller's now."""
        ready = self._ready
        if ready is None or ready.ended.done() or ready.installed != installed:
            return None
        self._ready = None
        return ready

    async def discard(self) -> None:
        """End what waits, and what is being made ready; `keep` makes another one ready."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            await cancel(preparing)
        await self._end_ready()

    async def close(self) -> None:
        """End what waits, for good."""
        self.wanted = False
        await self.discard()

    async def _prepare(self, installed: Installed | None) -> None:
        if self._ready is not None and self._ready.installed != installed:
            await self._end_ready()
        if installed is None:
            return
        failures = 0
        while failures < MOST_FAILURES:
            await asyncio.sleep(PAUSE_S)
            if self._ready is None or self._ready.ended.done():
                try:
                    self._ready = await self._start(installed)
                except WorkerError as error:
                    failures += 1
                    log.warning("no worker could be made ready to stand in: %s", error)
                    continue
            await asyncio.wait({self._ready.ended})
            failures += 1  # it died while it waited, of itself or because the board has no memory for two

    async def _end_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            await ready.kill()
