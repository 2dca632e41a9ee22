"""The update, as the other parts of the agent see it: what they may ask of it and tell it.

What is persisted is the journal's, the order of the steps the loop's, each step the business of `steps`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.config import ProbationSection
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.slots import Slots
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.telemetry.temperature import temperature_c
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.fit import Capabilities
from autoglm_edge_agent.updates.journal import Journal
from autoglm_edge_agent.updates.loop import UpdateLoop
from autoglm_edge_agent.updates.models import Models
from autoglm_edge_agent.updates.observation import Observation
from autoglm_edge_agent.updates.states import Event, State
from autoglm_edge_agent.updates.steps import DAMAGED, Steps
from autoglm_edge_agent.updates.watch import Watch
from autoglm_edge_protocol.deployment import DeploymentReport, DesiredState, Installed, Reason

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 600.0
"""How long a bundle that was found whole on disk is not read again, while its workers fail every few seconds."""


class Updater:
    """Owns the slots and the record of the update.

    Args:
        on_change: called after every change that the fleet should hear of.
        read_temperature: returns how warm the board is in degrees Celsius, None where that is not known.
    """

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        models: Models,
        capabilities: Capabilities,
        reserve_bytes: int,
        probation: ProbationSection,
        on_change: Callable[[], None],
        read_temperature: Callable[[], float | None] = temperature_c,
    ) -> None:
        self._store = store
        self._models = models
        self.observation = Observation()
        """Where what workers tell is to be noted."""
        self._journal = Journal(store, on_change)
        board_bytes = capabilities.memory_bytes
        watch = Watch(store, self._journal, models, self.observation, probation, board_bytes, read_temperature)
        steps = Steps(store, self._journal, fetcher, models, capabilities, reserve_bytes, watch)
        self._loop = UpdateLoop(self._journal, steps)
        self.pulse = self._loop.pulse
        self._whole: tuple[Installed, float] | None = None
        """The bundle that was found whole on disk, and when."""

    @property
    def slots(self) -> Slots:
        """The slots as they are on disk."""
        return self._journal.slots

    def report(self) -> DeploymentReport | None:
        """Return what the fleet is told about the update."""
        return self._journal.report()

    def progressed(self, sha256: str, verified_bytes: int) -> None:
        """Count what is here of a file that is being fetched."""
        self._journal.progressed(sha256, verified_bytes)

    def found(self, sha256: str, found_bytes: int, verified_bytes: int) -> None:
        """Count what has come of it without a network."""
        self._journal.found(sha256, found_bytes, verified_bytes)

    def resume(self) -> None:
        """Begin where the last process ended; to be called before anything is served. Never raises."""
        self._journal.resume()
        if self._journal.record.state is State.PROBATION:
            self.observation.watch(self._journal.target)  # what crashes as soon as it serves counts as well

    def pause(self) -> None:
        """Note that the agent ends in order. Never raises."""
        self._journal.pause()

    async def run(self) -> None:
        """Carry desired states out, for ever."""
        if self._journal.record.ended:
            self._journal.collect()
        else:
            self._loop.wake()
        await self._loop.run()

    async def desire(self, desired: DesiredState) -> bool:
        """Take a desired state; returns False for one that is not newer. Raises OSError when it cannot be kept."""
        journal = self._journal
        if desired.generation <= journal.record.generation or journal.sealed is not None:
            return False
        try:
            async with journal.switching:
                await self._loop.interrupt()
                await self._models.discard_trial()
                await self._finish_rolling_back()
                journal.begin(journal.record.desire(desired))
        finally:
            self._loop.wake()  # when it could not be kept, what was being done goes on
        log.info("generation %d: %s is desired", desired.generation, desired.bundle.id if desired.bundle else "nothing")
        return True

    async def _finish_rolling_back(self) -> None:
        """Leave no model serving that has offended: the newer order may be refused, and then it would stay."""
        if self._journal.record.state is State.ROLLING_BACK:
            self._journal.go_back()
            await self._models.switch(self._journal.slots.current)

    async def roll_back(self, command_id: str) -> Installed:
        """Serve the last known good bundle again, as an operator commands.

        Raises Refusal (`no-previous`, `newer-state`), OSError.
        """
        journal = self._journal
        if journal.sealed is not None:
            raise Refusal(journal.sealed.code, journal.sealed.message)
        async with journal.switching:
            if journal.slots.last_rollback != command_id:
                if journal.slots.previous is None:
                    raise Refusal("no-previous", "there is no previous bundle to go back to")
                journal.withdraw(Reason(code="rolled-back", message="rolled back by command"), command_id)
            current = journal.slots.current
            if current is None:
                raise Refusal("no-previous", "there is no bundle to go back to")
            await self._models.switch(current)
        if journal.record.ended:  # else another update is under way, and cleans up at its end
            journal.collect()
        return current

    async def unserviceable(self, installed: Installed, reason: Reason) -> Installed | None:
        """Return what to serve instead of a bundle whose workers keep failing; None to go on trying with it.

        A bundle whose bytes were damaged on disk is fetched again.
        """
        journal = self._journal
        if journal.sealed is not None:
            return installed
        slots = journal.slots
        try:
            async with journal.switching:
                if journal.slots.current != installed or journal.slots != slots:
                    return journal.slots.current  # it is told of what was replaced, or repaired, in the meantime
                if damaged := await self._forget_damaged(installed):
                    reason = Reason(code=DAMAGED, message=f"{damaged[0]} of {installed.bundle.id} was damaged on disk")
                    log.warning("%s", reason.message)
                    self._fetch_again(installed)
                elif journal.record.state is State.PROBATION:
                    reason = Reason(
                        code="probation-crashes", message=f"its workers keep failing: {reason.message}"[:2000]
                    )
                if journal.slots.previous is not None:
                    # What waits to be activated is the same bundle, whole again: only the damaged one has failed.
                    journal.withdraw(reason, None, condemned=journal.slots.staging != installed)
        except OSError as error:
            log.warning("%s can neither be replaced nor repaired yet: %s", installed.bundle.id, error)
        return journal.slots.current

    async def _forget_damaged(self, installed: Installed) -> list[str]:
        """Remove what has changed on disk of a bundle, and return what that was. Raises OSError."""
        now = time.monotonic()
        if self._whole is not None and self._whole[0] == installed and now - self._whole[1] < LOOK_AGAIN_S:
            return []
        damaged = await in_thread(self._store.forget_damaged, installed)
        self._whole = None if damaged else (installed, now)
        return damaged

    def _fetch_again(self, installed: Installed) -> None:
        """Begin again with a bundle that was confirmed or activated.

        One that has failed is not: only a new generation tries it again. One before its activation finds by itself what
        it lacks.
        """
        journal = self._journal
        if journal.record.bundle != installed.bundle:
            return
        # Before the slots change: were the power lost in between, nothing else would tell that it is to come back.
        if journal.record.state is State.CONFIRMED:
            journal.begin(journal.record.renew())
            self._loop.wake()
        elif journal.record.state in (State.ACTIVATING, State.PROBATION):
            journal.commit(journal.record.after(Event.LOST))
