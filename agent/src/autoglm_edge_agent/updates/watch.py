"""The step of probation: watches the new model until it has passed or offended, and keeps what was seen.

What is too much is decided in `probation`. Progress is committed now and then: after a loss of power the probation goes
on from there, and a bundle that brings the device down again and again is given up by the count of its beginnings.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Callable

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.config import ProbationSection
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.journal import Journal
from autoglm_edge_agent.updates.models import Models
from autoglm_edge_agent.updates.observation import Observation
from autoglm_edge_agent.updates.probation import (
    Baseline,
    Evidence,
    Limits,
    capped,
    expected_ratio,
    limits_of,
    offence,
    passed,
)
from autoglm_edge_agent.updates.states import Event, State
from autoglm_edge_protocol.deployment import Installed, Reason
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.manifest import Variant
from autoglm_edge_protocol.probation import ProbationTerms

log = logging.getLogger(__name__)

LOOK_S = 0.5
KEEP_S = 15.0
"""How much of what was seen a loss of power may cost; oftener would only wear the card out."""


class Watch:
    """Watches the bundle that was activated last.

    Args:
        board_bytes: memory of the board.
        read_temperature: returns how warm the board is in degrees Celsius, None where that is not known.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        models: Models,
        observation: Observation,
        section: ProbationSection,
        board_bytes: int,
        read_temperature: Callable[[], float | None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._models = models
        self._observation = observation
        self._section = section
        self._board_bytes = board_bytes
        self._read_temperature = read_temperature
        self._kept_at = 0.0

    async def baseline(self, installed: Installed | None) -> Baseline:
        """Return how the serving model does, for its successor to be compared with."""
        return self._observation.baseline(installed, await in_thread(self._read_temperature))

    def expect(self, installed: Installed) -> None:
        """Count from now on what is told of this bundle."""
        self._observation.watch(installed)

    async def keep(self) -> None:
        """Watch until the state is another one. Raises OSError when what was seen cannot be kept."""
        journal = self._journal
        if not journal.slots.unproven:  # the bundle that was desired has been serving all the time
            journal.commit(journal.record.after(Event.PASSED))
            return
        target, previous = journal.target, journal.slots.previous
        terms = self._terms()
        if self._observation.watched != target:  # after a restart nobody has activated it
            self.expect(target)
        limits = self._limits(terms)
        if terms.shadow is not None and previous is not None:
            await self._models.shadow(previous, target, terms.shadow)
        try:
            await self._look_until_decided(terms, limits)
        finally:
            await self._models.end_shadow()
        if journal.record.ended:
            journal.collect()

    async def _look_until_decided(self, terms: ProbationTerms, limits: Limits) -> None:
        journal = self._journal
        looked = self._kept_at = time.monotonic()
        while journal.record.state is State.PROBATION:
            now = time.monotonic()
            await self._look(terms, limits, now - looked)
            looked = now
            if journal.record.state is State.PROBATION:
                left_s = terms.duration_s - (journal.record.evidence or Evidence()).elapsed_s
                await asyncio.sleep(min(LOOK_S, left_s) if left_s > 0 else LOOK_S)

    async def _look(self, terms: ProbationTerms, limits: Limits, since_s: float) -> None:
        self._observation.warmth(await in_thread(self._read_temperature))
        journal = self._journal
        async with journal.switching:
            if journal.record.state is not State.PROBATION:
                return  # an operator, or the end of a worker, has decided meanwhile
            before = journal.record.evidence or Evidence()
            seen = before.plus(self._observation.take(journal.target)).plus(Evidence(elapsed_s=since_s))
            journal.note(journal.record.model_copy(update={"evidence": seen}))
            reason = offence(terms, limits, journal.record.baseline, seen, self._observation.readings())
            if reason is not None:
                self._offended(reason)
            elif passed(terms, seen):
                self._passed()
            elif seen.crashes > before.crashes or time.monotonic() - self._kept_at > KEEP_S:
                journal.commit(journal.record)
                self._kept_at = time.monotonic()

    def _offended(self, reason: Reason) -> None:
        journal = self._journal
        if journal.slots.previous is None:
            text = f"{reason.message}; there is no previous bundle to go back to, so it serves on"
            reason = reason.model_copy(update={"message": text})
        log.warning("generation %d did not pass its probation: %s", journal.record.generation, reason.message)
        journal.commit(journal.record.after(Event.OFFENDED, reason=reason))

    def _passed(self) -> None:
        journal = self._journal
        journal.commit_slots(journal.slots.prove())
        journal.commit(journal.record.after(Event.PASSED))
        log.info("%s has passed its probation", journal.reference.id)

    def _terms(self) -> ProbationTerms:
        wanted = self._journal.record.probation or self._section.default
        return capped(wanted, self._section.max_duration_s, self._section.max_shadow_rate)

    def _limits(self, terms: ProbationTerms) -> Limits:
        new, old = self._variant(self._journal.target), self._variant(self._journal.slots.previous)
        ratio = expected_ratio(old, new, platform.machine()) if new else 1.0
        needs_bytes = new.needs.memory_bytes if new else None
        return limits_of(terms, self._journal.record.baseline, ratio, needs_bytes, self._board_bytes)

    def _variant(self, installed: Installed | None) -> Variant | None:
        """Return what the manifest says; None where it cannot be read, which is no reason to give a model up."""
        if installed is None:
            return None
        try:
            return self._store.read_manifest(installed.bundle).variant(installed.variant)
        except (OSError, ProtocolError) as error:
            log.warning("the manifest of %s cannot be read: %s", installed.bundle.id, error)
            return None
