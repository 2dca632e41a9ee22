"""The steps of an update, one for each state in which something is to be done.

What may be run, which bytes are missing and what state follows is decided elsewhere (`fit`, `blocks`, `states`); here
the steps are done. Whatever goes wrong, the slots keep naming a bundle that is whole on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.storage.store import Store, files_here
from autoglm_edge_agent.updates.contents import (
    check_space,
    index_file,
    needed_files,
    read_chunked_files,
    read_manifest,
)
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.fit import Capabilities, choose_variant
from autoglm_edge_agent.updates.journal import Journal
from autoglm_edge_agent.updates.record import MAX_TRIALS
from autoglm_edge_agent.updates.states import TABLE, Event, State
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.deployment import Installed

log = logging.getLogger(__name__)

DAMAGED = "damaged-on-disk"


class Models(Protocol):
    """What an update needs of the part that runs models."""

    async def try_out(self, installed: Installed) -> None:
        """Load a bundle beside the serving one and replay its golden set. Raises Refusal or Hindrance."""

    def tried(self, installed: Installed) -> bool:
        """Whether a worker that agreed waits to take over."""

    async def switch(self, installed: Installed | None) -> None:
        """Serve this bundle from now on; never fails, a worker that dies is the supervisor's business."""

    async def discard_trial(self) -> None:
        """End a worker that will not take over."""


class Steps:
    """Does what the present state of the record asks for.

    Args:
        switching: held while the slots change together with what is served.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        fetcher: Fetcher,
        models: Models,
        capabilities: Capabilities,
        reserve_bytes: int,
        switching: asyncio.Lock,
    ) -> None:
        self._store = store
        self._journal = journal
        self._fetcher = fetcher
        self._models = models
        self._capabilities = capabilities
        self._reserve_bytes = reserve_bytes
        self._switching = switching
        self._steps: dict[State, Callable[[], Awaitable[None]]] = {
            State.RESOLVING: self._resolve,
            State.FETCHING: self._fetch,
            State.INSTALLING: self._install,
            State.TRYING: self._try,
            State.ACTIVATING: self._activate,
        }

    async def take(self) -> None:
        """Do the step of the present state; a refusal ends the update. Raises Hindrance, OSError: try again later."""
        try:
            await self._steps[self._journal.record.state]()
        except FileNotFoundError as error:
            raise self._lost(f"a file of the update is missing: {error}") from None
        except (Hindrance, OSError):
            raise
        except Refusal as refusal:
            await self._refuse(refusal)
        except Exception as error:
            # A defect of ours must not end the agent at every start: the old model serves, and the fleet hears of it.
            log.exception("generation %d met a defect of the agent", self._journal.record.generation)
            raise Hindrance("internal-error", f"a defect of the agent: {type(error).__name__}: {error}") from None

    async def _refuse(self, refusal: Refusal) -> None:
        journal = self._journal
        log.warning("generation %d is refused: %s", journal.record.generation, refusal)
        await self._models.discard_trial()
        if journal.slots.staging is not None:
            journal.commit_slots(journal.slots.unstage())
        journal.commit(journal.record.after(Event.REFUSED, reason=refusal.reason))
        journal.collect()

    def _lost(self, what: str) -> Hindrance:
        """Begin again, because files that were on disk are there no more; returns what to raise."""
        record = self._journal.record
        if (record.state, Event.LOST) in TABLE:
            self._journal.commit(record.after(Event.LOST))
        return Hindrance(DAMAGED, f"{what}; it is fetched again")

    async def _resolve(self) -> None:
        journal = self._journal
        if journal.record.bundle is None:
            await self._stop_serving()
            return
        reference = journal.reference
        keep = journal.slots.manifests() | {reference.manifest_sha256}
        self._store.collect(keep)
        await self._fetch_file(ChunkedFile.whole(reference.manifest_sha256, reference.manifest_size_bytes))
        manifest = read_manifest(self._store, reference)
        variant = choose_variant(manifest, journal.record.requested_variant, self._capabilities)
        files = needed_files(manifest, variant)
        self._store.collect(keep)  # now that it is known which files the new bundle shares with what is here
        check_space(self._store, files, self._reserve_bytes)
        total_bytes = reference.manifest_size_bytes + sum(entry.size_bytes for entry in files)
        journal.commit(journal.record.after(Event.RESOLVED, variant=variant.id, total_bytes=total_bytes))

    async def _fetch(self) -> None:
        journal = self._journal
        reference, progress = journal.reference, journal.progress
        await self._fetch_file(ChunkedFile.whole(reference.manifest_sha256, reference.manifest_size_bytes))
        manifest, variant = journal.resolved()
        files = needed_files(manifest, variant)
        for entry in files:
            if self._store.has(entry.sha256):
                progress.reached(entry.sha256, entry.size_bytes)
        check_space(self._store, files, self._reserve_bytes)
        await self._fetch_file(index_file(manifest))
        for chunked in read_chunked_files(self._store, manifest, files):
            await self._fetch_file(chunked)
        counted = {"fetched_bytes": progress.fetched_bytes, "present_bytes": progress.present_bytes}
        journal.commit(journal.record.after(Event.FETCHED, **counted))

    async def _fetch_file(self, file: ChunkedFile) -> None:
        progress = self._journal.progress
        if self._store.has(file.sha256):
            progress.reached(file.sha256, file.size_bytes)
        await self._fetcher.fetch(file)
        progress.reached(file.sha256, file.size_bytes)

    async def _install(self) -> None:
        journal = self._journal
        manifest, variant = journal.resolved()
        await in_thread(self._store.install, journal.reference, files_here(manifest, variant))
        journal.commit_slots(journal.slots.stage(journal.target))
        journal.commit(journal.record.after(Event.INSTALLED))

    async def _try(self) -> None:
        journal = self._journal
        if journal.record.trials >= MAX_TRIALS:
            raise Refusal("trial-interrupted", f"the device went down {MAX_TRIALS} times while trying this bundle")
        # Counted before it starts: if the model takes the device down with it, the count is what ends the loop.
        journal.commit(journal.record.model_copy(update={"trials": journal.record.trials + 1}))
        try:
            await self._models.try_out(journal.target)
        except Refusal:
            # The golden set finds bytes that went wrong on this disk as well; that is not the bundle's fault.
            if damaged := await in_thread(self._store.forget_damaged, journal.target):
                raise self._lost(f"{damaged[0]} was damaged on disk") from None
            raise
        journal.commit(journal.record.after(Event.AGREED))

    async def _activate(self) -> None:
        journal = self._journal
        async with self._switching:
            target = journal.target
            if journal.slots.current != target and not self._models.tried(target):
                journal.commit(journal.record.after(Event.INTERRUPTED))
                return
            if journal.slots.staging is not None:
                journal.commit_slots(journal.slots.activate())
            await self._models.switch(target)
            journal.commit(journal.record.after(Event.ACTIVATED))
        log.info("%s (%s) serves", target.bundle.id, target.variant)
        journal.collect()

    async def _stop_serving(self) -> None:
        journal = self._journal
        async with self._switching:
            await self._models.switch(None)
            journal.commit_slots(journal.slots.clear())
            journal.commit(journal.record.after(Event.CLEARED))
        journal.collect()
