"""The loop that carries an update on: step after step until it has ended, waiting where something stands in the way."""

from __future__ import annotations

import asyncio
import logging

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.errors import Hindrance, hindrance_of
from autoglm_edge_agent.updates.journal import Journal
from autoglm_edge_agent.updates.steps import Steps

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0


class UpdateLoop:
    """Runs the steps in a task of their own, so that a newer order can end what is being done."""

    def __init__(self, journal: Journal, steps: Steps) -> None:
        self._journal = journal
        self._steps = steps
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Look at the record again: it may say that there is something to do."""
        self._work.set()

    async def run(self) -> None:
        """Carry updates on, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            self._task = asyncio.create_task(self._carry_out())
            try:
                await asyncio.wait({self._task})
            finally:
                await self.interrupt()

    async def interrupt(self) -> None:
        """End the step that is being done, and wait for its end."""
        task, self._task = self._task, None
        if task is not None:
            await cancel(task)
            if not task.cancelled() and task.exception() is not None:
                raise RuntimeError("an update step failed in a way it must not") from task.exception()

    async def _carry_out(self) -> None:
        delay_s = FIRST_RETRY_S
        while not self._journal.record.ended:
            try:
                await self._steps.take()
            except (Hindrance, OSError) as error:
                hindrance = error if isinstance(error, Hindrance) else hindrance_of(error)
                log.warning("the update waits: %s", hindrance)
                self._journal.hinder(hindrance.reason)
                await asyncio.sleep(delay_s)
                delay_s = min(LAST_RETRY_S, 2 * delay_s)
            else:
                delay_s = FIRST_RETRY_S
                self._journal.hinder(None)
