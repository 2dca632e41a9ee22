"""The update: carries a desired state out, step by step, each persisted before it starts.

What may be run, which bytes are missing and what state follows is decided elsewhere (`fit`, `blocks`, `states`); here
the steps are done. Whatever goes wrong, the slots keep naming a bundle that is whole on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from autoglm_edge_agent.cancellation import cancel, in_thread
from autoglm_edge_agent.errors import Hindrance, Refusal, hindrance_of
from autoglm_edge_agent.storage.slots import Slots
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
from autoglm_edge_agent.updates.progress import Progress
from autoglm_edge_agent.updates.record import MAX_TRIALS, UpdateRecord, read_record, write_record
from autoglm_edge_agent.updates.states import TABLE, Event, State
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, DesiredState, Installed, Reason
from autoglm_edge_protocol.manifest import Manifest, Variant

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
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


class Updater:
    """Owns the slots and the record of the update.

    Args:
        on_change: called after every change that the fleet should hear of.
    """

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        models: Models,
        capabilities: Capabilities,
        reserve_bytes: int,
        on_change: Callable[[], None],
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._models = models
        self._capabilities = capabilities
        self._reserve_bytes = reserve_bytes
        self._on_change = on_change
        self._record_path = store.directory / "update.json"
        self._record = read_record(self._record_path)
        self._slots = store.read_slots()
        self._progress = Progress()
        self._hindrance: Reason | None = None
        self._switching = asyncio.Lock()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._steps: dict[State, Callable[[], Awaitable[None]]] = {
            State.RESOLVING: self._resolve,
            State.FETCHING: self._fetch,
            State.INSTALLING: self._install,
            State.TRYING: self._try,
            State.ACTIVATING: self._activate,
        }

    # what others ask ----

    @property
    def slots(self) -> Slots:
        """The slots as they are on disk."""
        return self._slots

    def report(self) -> DeploymentReport | None:
        """Return what the fleet is told about the update."""
        return self._record.report(self._progress, self._hindrance)

    def progressed(self, sha256: str, verified_bytes: int) -> None:
        """Count what is here of a file that is being fetched."""
        self._progress.reached(sha256, verified_bytes)
        self._on_change()

    async def desire(self, desired: DesiredState) -> bool:
        """Take a desired state; returns False for one that is not newer. Raises OSError when it cannot be kept."""
        if desired.generation <= self._record.generation:
            return False
        await self._begin(lambda: self._record.desire(desired))
        log.info("generation %d: %s is desired", desired.generation, desired.bundle.id if desired.bundle else "nothing")
        return True

    async def roll_back(self, command_id: str) -> Installed:
        """Serve the last known good bundle again, as an operator commands. Raises Refusal (`no-previous`), OSError."""
        async with self._switching:
            if self._slots.last_rollback != command_id:
                if self._slots.previous is None:
                    raise Refusal("no-previous", "there is no previous bundle to go back to")
                self._withdraw(Reason(code="rolled-back", message="rolled back by command"), command_id)
            current = self._slots.current
            if current is None:
                raise Refusal("no-previous", "there is no bundle to go back to")
            await self._models.switch(current)
            return current

    async def unserviceable(self, installed: Installed, reason: Reason) -> Installed | None:
        """Return what to serve instead of a bundle whose workers keep failing; None to go on trying with it.

        A bundle whose bytes were damaged on disk is fetched again.
        """
        try:
            async with self._switching:
                if self._slots.current != installed:
                    return self._slots.current
                if damaged := await in_thread(self._store.forget_damaged, installed):
                    reason = Reason(code=DAMAGED, message=f"{damaged[0]} of {installed.bundle.id} was damaged on disk")
                    log.warning("%s", reason.message)
                    self._fetch_again(installed)
                if self._slots.previous is not None:
                    self._withdraw(reason, None)
        except OSError as error:
            log.warning("%s can neither be replaced nor repaired yet: %s", installed.bundle.id, error)
        return self._slots.current

    def _fetch_again(self, installed: Installed) -> None:
        """Begin again with a bundle that was confirmed; one that is not ended finds by itself what it lacks."""
        # Before the slots change: were the power lost in between, nothing else would tell that it is to come back.
        if self._record.ended and self._record.bundle == installed.bundle:
            self._commit(self._record.renew())
            self._progress = Progress()
            self._work.set()

    # the work ----

    async def run(self) -> None:
        """Carry desired states out, for ever."""
        self._settle()
        if self._record.ended:
            self._collect()
        else:
            self._work.set()
        while True:
            await self._work.wait()
            self._work.clear()
            self._task = asyncio.create_task(self._carry_out())
            try:
                await asyncio.wait({self._task})
            finally:
                await self._cancel()

    async def _begin(self, change: Callable[[], UpdateRecord]) -> None:
        try:
            async with self._switching:
                await self._cancel()
                await self._models.discard_trial()
                record = change()
                write_record(self._store.disk, self._record_path, record)
                self._record, self._progress, self._hindrance = record, Progress(), None
                self._on_change()
        finally:
            self._work.set()  # when it could not be kept, what was being done goes on

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await cancel(task)
            if not task.cancelled() and task.exception() is not None:
                raise RuntimeError("an update step failed in a way it must not") from task.exception()

    async def _carry_out(self) -> None:
        delay_s = FIRST_RETRY_S
        while not self._record.ended:
            try:
                await self._step()
            except (Hindrance, OSError) as error:
                hindrance = error if isinstance(error, Hindrance) else hindrance_of(error)
                log.warning("the update waits: %s", hindrance)
                self._set_hindrance(hindrance.reason)
                await asyncio.sleep(delay_s)
                delay_s = min(LAST_RETRY_S, 2 * delay_s)
            else:
                delay_s = FIRST_RETRY_S
                self._set_hindrance(None)

    async def _step(self) -> None:
        try:
            await self._steps[self._record.state]()
        except FileNotFoundError as error:
            raise self._lost(f"a file of the update is missing: {error}") from None
        except (Hindrance, OSError):
            raise
        except Refusal as refusal:
            await self._refuse(refusal)
        except Exception as error:
            # A defect of ours must not end the agent at every start: the old model serves, and the fleet hears of it.
            log.exception("generation %d met a defect of the agent", self._record.generation)
            raise Hindrance("internal-error", f"a defect of the agent: {type(error).__name__}: {error}") from None

    async def _refuse(self, refusal: Refusal) -> None:
        log.warning("generation %d is refused: %s", self._record.generation, refusal)
        await self._models.discard_trial()
        if self._slots.staging is not None:
            self._commit_slots(self._slots.unstage())
        self._commit(self._record.after(Event.REFUSED, reason=refusal.reason))
        self._collect()

    def _lost(self, what: str) -> Hindrance:
        """Begin again, because files that were on disk are there no more; returns what to raise."""
        if (self._record.state, Event.LOST) in TABLE:
            self._commit(self._record.after(Event.LOST))
        return Hindrance(DAMAGED, f"{what}; it is fetched again")

    async def _resolve(self) -> None:
        reference = self._record.bundle
        if reference is None:
            await self._stop_serving()
            return
        keep = self._slots.manifests() | {reference.manifest_sha256}
        self._store.collect(keep)
        await self._fetch_file(ChunkedFile.whole(reference.manifest_sha256, reference.manifest_size_bytes))
        manifest = read_manifest(self._store, reference)
        variant = choose_variant(manifest, self._record.requested_variant, self._capabilities)
        files = needed_files(manifest, variant)
        self._store.collect(keep)  # now that it is known which files the new bundle shares with what is here
        check_space(self._store, files, self._reserve_bytes)
        total_bytes = reference.manifest_size_bytes + sum(entry.size_bytes for entry in files)
        self._commit(self._record.after(Event.RESOLVED, variant=variant.id, total_bytes=total_bytes))

    async def _fetch(self) -> None:
        reference = self._reference()
        await self._fetch_file(ChunkedFile.whole(reference.manifest_sha256, reference.manifest_size_bytes))
        manifest, variant = self._resolved()
        files = needed_files(manifest, variant)
        for entry in files:
            if self._store.has(entry.sha256):
                self._progress.reached(entry.sha256, entry.size_bytes)
        check_space(self._store, files, self._reserve_bytes)
        await self._fetch_file(index_file(manifest))
        for chunked in read_chunked_files(self._store, manifest, files):
            await self._fetch_file(chunked)
        self._commit(
            self._record.after(
                Event.FETCHED,
                fetched_bytes=self._progress.fetched_bytes,
                present_bytes=self._progress.present_bytes,
            )
        )

    async def _fetch_file(self, file: ChunkedFile) -> None:
        if self._store.has(file.sha256):
            self._progress.reached(file.sha256, file.size_bytes)
        await self._fetcher.fetch(file)
        self._progress.reached(file.sha256, file.size_bytes)

    async def _install(self) -> None:
        manifest, variant = self._resolved()
        reference = self._reference()
        await in_thread(self._store.install, reference, files_here(manifest, variant))
        self._commit_slots(self._slots.stage(Installed(bundle=reference, variant=variant.id)))
        self._commit(self._record.after(Event.INSTALLED))

    async def _try(self) -> None:
        if self._record.trials >= MAX_TRIALS:
            raise Refusal("trial-interrupted", f"the device went down {MAX_TRIALS} times while trying this bundle")
        # Counted before it starts: if the model takes the device down with it, the count is what ends the loop.
        self._commit(self._record.model_copy(update={"trials": self._record.trials + 1}))
        try:
            await self._models.try_out(self._target())
        except Refusal:
            # The golden set finds bytes that went wrong on this disk as well; that is not the bundle's fault.
            if damaged := await in_thread(self._store.forget_damaged, self._target()):
                raise self._lost(f"{damaged[0]} was damaged on disk") from None
            raise
        self._commit(self._record.after(Event.AGREED))

    async def _activate(self) -> None:
        async with self._switching:
            target = self._target()
            if self._slots.current != target and not self._models.tried(target):
                self._commit(self._record.after(Event.INTERRUPTED))
                return
            if self._slots.staging is not None:
                self._commit_slots(self._slots.activate())
            await self._models.switch(target)
            self._commit(self._record.after(Event.ACTIVATED))
        log.info("%s (%s) serves", target.bundle.id, target.variant)
        self._collect()

    async def _stop_serving(self) -> None:
        async with self._switching:
            await self._models.switch(None)
            self._commit_slots(self._slots.clear())
            self._commit(self._record.after(Event.CLEARED))
        self._collect()

    # what the steps share ----

    def _reference(self) -> BundleReference:
        assert self._record.bundle is not None
        return self._record.bundle

    def _target(self) -> Installed:
        assert self._record.variant is not None
        return Installed(bundle=self._reference(), variant=self._record.variant)

    def _resolved(self) -> tuple[Manifest, Variant]:
        manifest = read_manifest(self._store, self._reference())
        variant = manifest.variant(self._record.variant or "")
        assert variant is not None
        return manifest, variant

    def _withdraw(self, reason: Reason, command_id: str | None) -> None:
        withdrawn, wanted = self._slots.current, self._slots.roll_back(command_id)
        try:
            self._commit_slots(wanted)
        except OSError as error:
            if self._slots != wanted:
                raise
            log.warning("rolled back, though a loss of power might undo it: %s", error)
        if (self._record.state, Event.WITHDRAWN) in TABLE and withdrawn and self._record.bundle == withdrawn.bundle:
            self._commit_or_settle_later(self._record.after(Event.WITHDRAWN, reason=reason))

    def _settle(self) -> None:
        """Make the record agree with the slots again, where a crash came between the two commits."""
        record, current = self._record, self._slots.current
        if record.state is not State.CONFIRMED or record.bundle is None:
            return
        if current is None:  # the slots could not be read
            self._commit_or_settle_later(record.renew())
        elif record.bundle != current.bundle:
            reason = Reason(code="rolled-back", message="rolled back, shortly before the agent went down")
            self._commit_or_settle_later(record.after(Event.WITHDRAWN, reason=reason))

    def _commit_or_settle_later(self, record: UpdateRecord) -> None:
        try:
            self._commit(record)
        except OSError as error:
            log.warning("the record of the update could not be kept: %s", error)
            self._record = record
            self._on_change()

    def _commit(self, record: UpdateRecord) -> None:
        write_record(self._store.disk, self._record_path, record)
        self._record = record
        self._on_change()

    def _commit_slots(self, slots: Slots) -> None:
        try:
            self._store.write_slots(slots)
        except OSError:
            self._slots = self._store.read_slots()  # a commit that fails late has taken place all the same
            raise
        self._slots = slots
        self._on_change()

    def _set_hindrance(self, hindrance: Reason | None) -> None:
        if hindrance != self._hindrance:
            self._hindrance = hindrance
            self._on_change()

    def _collect(self) -> None:
        try:
            self._store.collect(self._slots.manifests())
        except OSError as error:
            log.warning("could not remove what is no longer needed: %s", error)
