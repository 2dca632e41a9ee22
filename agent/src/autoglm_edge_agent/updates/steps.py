"""The steps of an update, one for each state in which something is to be done.

What may be run, which bytes are missing and what state follows is decided elsewhere (`fit`, `blocks`, `states`); here
the steps are done. Whatever goes wrong, the slots keep naming a bundle that is whole on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

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
from autoglm_edge_agent.updates.fit import Capabilities, choose_variant, contenders
from autoglm_edge_agent.updates.journal import Journal
from autoglm_edge_agent.updates.models import Models
from autoglm_edge_agent.updates.probation import Evidence
from autoglm_edge_agent.updates.record import MOST_BEGUN
from autoglm_edge_agent.updates.seeding import look_for_seeds
from autoglm_edge_agent.updates.seeds import NOWHERE, Places
from autoglm_edge_agent.updates.states import TABLE, Event, State
from autoglm_edge_agent.updates.watch import Watch
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.manifest import Manifest, Variant

log = logging.getLogger(__name__)

DAMAGED = "damaged-on-disk"


class Steps:
    """Does what the present state of the record asks for."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        fetcher: Fetcher,
        models: Models,
        capabilities: Capabilities,
        reserve_bytes: int,
        watch: Watch,
    ) -> None:
        self._store = store
        self._journal = journal
        self._fetcher = fetcher
        self._models = models
        self._capabilities = capabilities
        self._reserve_bytes = reserve_bytes
        self._watch = watch
        self._steps: dict[State, Callable[[], Awaitable[None]]] = {
            State.RESOLVING: self._resolve,
            State.FETCHING: self._fetch,
            State.INSTALLING: self._install,
            State.TRYING: self._try,
            State.ACTIVATING: self._activate,
            State.PROBATION: watch.keep,
            State.ROLLING_BACK: self._go_back,
        }

    async def take(self) -> None:
        """Do the step of the present state; a refusal ends the update. Raises Hindrance, OSError: try again later."""
        try:
            self._break_loop()
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

    def _break_loop(self) -> None:
        record = self._journal.record
        if not record.exhausted:
            return
        self._journal.break_loop()
        if (record.state, Event.REFUSED) in TABLE:
            code = "trial-interrupted" if record.state is State.TRYING else "update-interrupted"
            times = MOST_BEGUN[record.state]
            raise Refusal(code, f"the device went down or began anew {times} times in the state {record.state.value}")

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
        requested = journal.record.requested_variant
        variant = choose_variant(manifest, requested, self._capabilities)
        others = contenders(manifest, variant, requested, self._capabilities)
        self._store.collect(keep)  # now that it is known which files the new bundle shares with what is here
        if others and not self._has_space(manifest, (variant, *others)):
            others = ()
        files = needed_files(manifest, (variant, *others))
        check_space(self._store, files, self._reserve_bytes)
        chosen = {"variant": variant.id, "contenders": tuple(other.id for other in others)}
        total_bytes = reference.manifest_size_bytes + sum(entry.size_bytes for entry in files)
        journal.commit(journal.record.after(Event.RESOLVED, **chosen, total_bytes=total_bytes))

    def _has_space(self, manifest: Manifest, variants: Sequence[Variant]) -> bool:
        try:
            check_space(self._store, needed_files(manifest, variants), self._reserve_bytes)
        except Hindrance:
            return False
        return True

    async def _fetch(self) -> None:
        journal = self._journal
        reference, progress = journal.reference, journal.progress
        await self._fetch_file(ChunkedFile.whole(reference.manifest_sha256, reference.manifest_size_bytes))
        manifest, variants = journal.wanted()
        files = needed_files(manifest, variants)
        for entry in files:
            if self._store.has(entry.sha256):
                progress.reached(entry.sha256, entry.size_bytes)
        check_space(self._store, files, self._reserve_bytes)
        await self._fetch_file(index_file(manifest))
        chunked_files = read_chunked_files(self._store, manifest, files)
        places = await look_for_seeds(self._store, chunked_files, journal.slots.installed())
        for chunked in chunked_files:
            await self._fetch_file(chunked, places)
        counted = {"fetched_bytes": progress.fetched_bytes, "present_bytes": progress.present_bytes}
        journal.commit(journal.record.after(Event.FETCHED, **counted))

    async def _fetch_file(self, file: ChunkedFile, places: Places = NOWHERE) -> None:
        progress = self._journal.progress
        if self._store.has(file.sha256):
            progress.reached(file.sha256, file.size_bytes)
        await self._fetcher.fetch(file, places)
        progress.reached(file.sha256, file.size_bytes)

    async def _install(self) -> None:
        journal = self._journal
        manifest, variants = journal.wanted()
        files = [entry for variant in variants for entry in files_here(manifest, variant)]
        await in_thread(self._store.install, journal.reference, files)
        journal.commit_slots(journal.slots.stage(journal.target))
        journal.commit(journal.record.after(Event.INSTALLED))

    async def _try(self) -> None:
        journal = self._journal
        if journal.record.contenders:
            await self._compare()
        try:
            await self._models.try_out(journal.target)
        except Refusal:
            # The golden set finds bytes that went wrong on this disk as well; that is not the bundle's fault.
            if damaged := await in_thread(self._store.forget_damaged, journal.target):
                raise self._lost(f"{damaged[0]} was damaged on disk") from None
            raise
        baseline = await self._watch.baseline(journal.slots.current)
        journal.commit(journal.record.after(Event.AGREED, baseline=baseline))

    async def _compare(self) -> None:
        """Decide between the chosen variant and those that may run faster here, by measuring them."""
        journal = self._journal
        _, variants = journal.wanted()
        choices = [Installed(bundle=journal.reference, variant=variant.id) for variant in variants]
        best = await self._models.fastest(choices) or journal.target
        if best != journal.target:
            log.info("%s: %s runs better here than %s", best.bundle.id, best.variant, journal.target.variant)
        # Were the power lost between the two, what was measured is kept, and the same is decided again.
        journal.commit_slots(journal.slots.stage(best))
        journal.commit(journal.record.decided(best.variant))

    async def _activate(self) -> None:
        journal = self._journal
        async with journal.switching:
            if journal.record.state is not State.ACTIVATING:
                return  # an operator, or the end of a worker, has decided meanwhile
            target = journal.target
            if journal.slots.current != target and not self._models.tried(target):
                journal.commit(journal.record.after(Event.INTERRUPTED))
                return
            if journal.slots.staging is not None or journal.slots.current != target:
                # Where the slots were lost meanwhile nothing is staged any more; what was tried is whole all the same.
                journal.commit_slots(journal.slots.stage(target).activate())
            self._watch.expect(target)
            await self._models.switch(target)
            journal.commit(journal.record.after(Event.ACTIVATED, evidence=Evidence()))
        log.info("%s (%s) serves", target.bundle.id, target.variant)
        journal.collect()

    async def _go_back(self) -> None:
        journal = self._journal
        async with journal.switching:
            journal.go_back()
            await self._models.switch(journal.slots.current)
            journal.commit(journal.record.after(Event.WITHDRAWN, reason=journal.record.reason))
        journal.collect()

    async def _stop_serving(self) -> None:
        journal = self._journal
        async with journal.switching:
            await self._models.switch(None)
            journal.commit_slots(journal.slots.clear())
            journal.commit(journal.record.after(Event.CLEARED))
        journal.collect()
