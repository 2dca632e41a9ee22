"""The loop that carries an update on: step after step until it has ended, waiting where something stands in the way."""

from __future__ import annotations

import asyncio
import logging

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.errors import Hindrance, hindrance_of
from autoglm_edge_agent.systemd.liveness import Pulse
from autoglm_edge_agent.updates.journal import Journal
from autoglm_edge_agent.updates.states import State
from autoglm_edge_agent.updates.steps import Steps

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
LONGEST_S: dict[State, float] = {
    State.INSTALLING: 1800.0,
    State.TRYING: 7200.0,
    State.ACTIVATING: 1800.0,
    State.ROLLING_BACK: 1800.0,
}
"""What a step may take on the slowest board and card before it counts as stuck.

The other steps wait for the network or for time: that is no sign of anything, and has limits of its own.
"""


class UpdateLoop:
    """Runs the steps in a task of their own, so that a newer order can end what is being done."""

    def __init__(self, journal: Journal, steps: Steps) -> None:
        self._journal = journal
        self._steps = steps
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.pulse = Pulse()

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
                await self._take_step()
            except (Hindrance, OSError) as error:
                hindrance = error if isinstance(error, Hindrance) else hindrance_of(error)
                log.warning("the update waits: %s", hindrance)
                self._journal.hinder(hindrance.reason)
                await asyncio.sleep(delay_s)
                delay_s = min(LAST_RETRY_S, 2 * delay_s)
            else:
                delay_s = FIRST_RETRY_S
                self._journal.hinder(None)

    async def _take_step(self) -> None:
        longest_s = LONGEST_S.get(self._journal.record.state)
        if longest_s is not None:
            self.pulse.within(longest_s)
        try:
            await self._steps.take()
        finally:
            self.pulse.rest()
