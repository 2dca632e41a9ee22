"""The update: carries a desired state out, step by step, each persisted before it starts.

What may be run, which bytes are missing and what state follows is decided elsewhere (`fit`, `blocks`, `states`); here
the steps are done. Whatever goes wrong, the slots keep naming a bundle that is whole on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from autoglm_edge_agent.errors import Hindrance, Refusal, hindrance_of
from autoglm_edge_agent.storage.slots import Slots
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.fit import Capabilities, choose_variant
from autoglm_edge_agent.updates.record import MAX_TRIALS, UpdateRecord, read_record, write_record
from autoglm_edge_agent.updates.states import Event, State
from autoglm_edge_protocol.chunks import ChunkedFile, ChunkIndex
from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, DesiredState, Installed, Reason
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import DigestMismatch, MalformedDocument, UnsupportedSchema
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH, FileEntry, Manifest, Variant

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0


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
        self._fetched_bytes = 0
        self._resumed_bytes = 0
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
        report = self._record.report(self._fetched_bytes, self._hindrance)
        if report is None or not self._resumed_bytes:
            return report
        return report.model_copy(update={"present_bytes": report.present_bytes + self._resumed_bytes})

    def progressed(self, fetched_bytes: int, resumed_bytes: int) -> None:
        """Count bytes of the present fetch."""
        self._fetched_bytes += fetched_bytes
        self._resumed_bytes += resumed_bytes
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
        async with self._switching:
            if self._slots.current != installed:
                return self._slots.current
            damaged = await asyncio.to_thread(self._store.forget_damaged, installed)
            if damaged:
                message = f"{damaged[0]} of {installed.bundle.id} was damaged on disk and is fetched again"
                reason = Reason(code="damaged-on-disk", message=message)
            if self._slots.previous is not None:
                self._withdraw(reason, None)
            elif damaged:
                self._commit_slots(self._slots.clear())
        if damaged and installed.bundle == self._record.bundle:
            await self._begin(self._record.renew)
        return self._slots.current

    # the work ----

    async def run(self) -> None:
        """Carry desired states out, for ever."""
        if not self._record.ended:
            self._work.set()
        else:
            self._collect()
        while True:
            await self._work.wait()
            self._work.clear()
            self._task = asyncio.create_task(self._carry_out())
            try:
                await asyncio.wait({self._task})
            finally:
                await self._cancel()

    async def _begin(self, change: Callable[[], UpdateRecord]) -> None:
        async with self._switching:
            await self._cancel()
            await self._models.discard_trial()
            self._commit(change())
            self._fetched_bytes = self._resumed_bytes = 0
        self._work.set()

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
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
        except Refusal as refusal:
            log.warning("generation %d is refused: %s", self._record.generation, refusal)
            await self._models.discard_trial()
            if self._slots.staging is not None:
                self._commit_slots(self._slots.unstage())
            self._commit(self._record.after(Event.REFUSED, reason=refusal.reason))
            self._collect()

    async def _resolve(self) -> None:
        reference = self._record.bundle
        if reference is None:
            await self._stop_serving()
            return
        self._store.collect(self._slots.manifests() | {reference.manifest_sha256})
        await self._fetcher.fetch(ChunkedFile.whole(reference.manifest_sha256, reference.manifest_size_bytes))
        manifest = self._manifest(reference)
        variant = choose_variant(manifest, self._record.requested_variant, self._capabilities)
        files = _needed_files(manifest, variant)
        present = sum(entry.size_bytes for entry in files if self._store.has(entry.sha256))
        total = sum(entry.size_bytes for entry in files)
        self._check_space(total - present)
        manifest_bytes = reference.manifest_size_bytes
        fetched_manifest = min(self._fetched_bytes, manifest_bytes)
        self._resumed_bytes = 0
        self._commit(
            self._record.after(
                Event.RESOLVED,
                variant=variant.id,
                total_bytes=total + manifest_bytes,
                present_bytes=present + manifest_bytes - fetched_manifest,
            )
        )

    async def _fetch(self) -> None:
        manifest, variant = self._resolved()
        files = _needed_files(manifest, variant)
        present = sum(entry.size_bytes for entry in files if self._store.has(entry.sha256))
        if self._fetched_bytes == 0:  # a restart: what came before it is on disk now
            manifest_bytes = self._store.object_path(self._reference().manifest_sha256).stat().st_size
            self._record = self._record.model_copy(update={"present_bytes": present + manifest_bytes})
        self._check_space(sum(entry.size_bytes for entry in files) - present)
        index_entry = manifest.file(CHUNK_INDEX_PATH)
        if index_entry.size_bytes > LIMITS.chunk_index_bytes:
            raise Refusal("bad-bundle", f"{CHUNK_INDEX_PATH} has {index_entry.size_bytes} bytes")
        await self._fetcher.fetch(ChunkedFile.whole(index_entry.sha256, index_entry.size_bytes))
        index = self._index(index_entry)
        for entry in files:
            chunked = index.find(entry.sha256)
            if entry.path == CHUNK_INDEX_PATH:
                continue
            if chunked is None or chunked.size_bytes != entry.size_bytes:
                raise Refusal("bad-bundle", f"{CHUNK_INDEX_PATH} does not describe {entry.path}")
            await self._fetcher.fetch(chunked)
        self._commit(self._record.after(Event.FETCHED))

    async def _install(self) -> None:
        manifest, variant = self._resolved()
        reference = self._reference()
        await asyncio.to_thread(self._store.install, reference, manifest.device_files(variant))
        self._commit_slots(self._slots.stage(Installed(bundle=reference, variant=variant.id)))
        self._commit(self._record.after(Event.INSTALLED))

    async def _try(self) -> None:
        if self._record.trials >= MAX_TRIALS:
            raise Refusal("trial-interrupted", f"the device went down {MAX_TRIALS} times while trying this bundle")
        # Counted before it starts: if the model takes the device down with it, the count is what ends the loop.
        self._commit(self._record.model_copy(update={"trials": self._record.trials + 1}))
        await self._models.try_out(self._target())
        self._commit(self._record.after(Event.AGREED))

    async def _activate(self) -> None:
        async with self._switching:
            target = self._target()
            if self._slots.current != target:
                if not self._models.tried(target):
                    self._commit(self._record.after(Event.INTERRUPTED))
                    return
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
        manifest = self._manifest(self._reference())
        variant = manifest.variant(self._record.variant or "")
        assert variant is not None
        return manifest, variant

    def _manifest(self, reference: BundleReference) -> Manifest:
        try:
            return self._store.read_manifest(reference)
        except UnsupportedSchema as error:
            raise Refusal("unsupported-schema", str(error)) from None
        except (MalformedDocument, DigestMismatch) as error:
            raise Refusal("bad-bundle", f"{MANIFEST_PATH}: {error}") from None

    def _index(self, entry: FileEntry) -> ChunkIndex:
        data = self._store.object_path(entry.sha256).read_bytes()
        try:
            return parse(ChunkIndex, data, LIMITS.chunk_index_bytes)
        except UnsupportedSchema as error:
            raise Refusal("unsupported-schema", str(error)) from None
        except MalformedDocument as error:
            raise Refusal("bad-bundle", f"{CHUNK_INDEX_PATH}: {error}") from None

    def _check_space(self, missing_bytes: int) -> None:
        free = self._store.free_bytes()
        need = missing_bytes + self._reserve_bytes
        if missing_bytes and free < need:
            raise Hindrance(
                "insufficient-space",
                f"{missing_bytes} bytes are to be fetched and {self._reserve_bytes} kept free, "
                f"but only {free} are free in {self._store.directory}",
            )

    def _withdraw(self, reason: Reason, command_id: str | None) -> None:
        withdrawn = self._slots.current
        self._commit_slots(self._slots.roll_back(command_id))
        if self._record.state is State.CONFIRMED and withdrawn and self._record.bundle == withdrawn.bundle:
            self._commit(self._record.after(Event.WITHDRAWN, reason=reason))

    def _commit(self, record: UpdateRecord) -> None:
        write_record(self._store.disk, self._record_path, record)
        self._record = record
        self._on_change()

    def _commit_slots(self, slots: Slots) -> None:
        self._store.write_slots(slots)
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


def _needed_files(manifest: Manifest, variant: Variant) -> tuple[FileEntry, ...]:
    """Return what has to be on disk, each content once: the device's files and the chunk index."""
    files = (*manifest.device_files(variant), manifest.file(CHUNK_INDEX_PATH))
    return tuple({entry.sha256: entry for entry in files}.values())
