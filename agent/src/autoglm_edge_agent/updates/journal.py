"""What is persisted of an update: the record and the slots as they are on disk, and the order in which they change.

Every change of either is one commit; where two belong together a crash between them is mended by `resume`. Files that a
newer release has written are left alone: what they say is to serve serves, and nothing is changed until that release is
back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from autoglm_edge_agent.storage.slots import Slots
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.contents import read_manifest
from autoglm_edge_agent.updates.probation import went_down
from autoglm_edge_agent.updates.progress import Progress
from autoglm_edge_agent.updates.record import MOST_BEGUN, UpdateRecord, read_record, write_record
from autoglm_edge_agent.updates.states import TABLE, Event, State
from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, Installed, Reason
from autoglm_edge_protocol.errors import UnsupportedSchema
from autoglm_edge_protocol.manifest import Manifest, Variant

log = logging.getLogger(__name__)

_BESIDE_WHAT_SERVES = frozenset(
    (State.IDLE, State.RESOLVING, State.FETCHING, State.INSTALLING, State.TRYING, State.FAILED)
)
"""States in which the record is of another bundle than the one that serves, or of none."""


class Journal:
    """The record and the slots of one device. Every method that commits may raise OSError.

    Args:
        on_change: called after every change that the fleet should hear of.
    """

    def __init__(self, store: Store, on_change: Callable[[], None]) -> None:
        self._store = store
        self._on_change = on_change
        self._path = store.directory / "update.json"
        self.sealed: Reason | None = None
        """Why nothing may be changed, None when it may."""
        self.record = self._read_record()
        kept = self._read_slots()
        self.slots = kept or Slots()
        self._lost_slots = kept is None
        self.switching = asyncio.Lock()
        """Held while the slots change together with what is served."""
        self.progress = Progress()
        self._hindrance: Reason | None = None

    def _read_record(self) -> UpdateRecord:
        try:
            return read_record(self._path)
        except UnsupportedSchema as error:
            self._seal(error)
            return UpdateRecord()

    def _read_slots(self) -> Slots | None:
        try:
            return self._store.read_slots()
        except UnsupportedSchema as error:
            self._seal(error)
            return self._store.salvage_slots()

    def _seal(self, error: UnsupportedSchema) -> None:
        self.sealed = Reason(
            code="newer-state", message=f"{error}; install the newer agent again to go on with updates"
        )
        log.error("nothing is updated: %s", self.sealed.message)

    # what it says ----

    @property
    def reference(self) -> BundleReference:
        """The bundle that is desired; only where there is one."""
        assert self.record.bundle is not None
        return self.record.bundle

    @property
    def target(self) -> Installed:
        """The bundle and the variant that was chosen; only once that is done."""
        assert self.record.variant is not None
        return Installed(bundle=self.reference, variant=self.record.variant)

    def resolved(self) -> tuple[Manifest, Variant]:
        """Return the manifest of what is desired and the variant that was chosen. Raises Refusal, OSError."""
        manifest = read_manifest(self._store, self.reference)
        variant = manifest.variant(self.record.variant or "")
        assert variant is not None
        return manifest, variant

    def wanted(self) -> tuple[Manifest, tuple[Variant, ...]]:
        """Return the manifest and the variants that have to be here, the chosen one and its contenders.

        They are in the bundle's order. Raises Refusal, OSError.
        """
        manifest, chosen = self.resolved()
        ids = (chosen.id, *self.record.contenders)
        return manifest, tuple(variant for variant in manifest.variants if variant.id in ids)

    def report(self) -> DeploymentReport | None:
        """Return what the fleet is told about the update."""
        if self.sealed is not None:
            return DeploymentReport(generation=0, bundle=None, phase=State.IDLE.value, reason=self.sealed)
        return self.record.report(self.progress, self._hindrance)

    # how it changes ----

    def begin(self, record: UpdateRecord) -> None:
        """Commit the record of another update; nothing is known of its progress yet."""
        write_record(self._store.disk, self._path, record)
        self.record, self.progress, self._hindrance = record, Progress(), None
        self._on_change()

    def commit(self, record: UpdateRecord) -> None:
        """Commit what has become of the update."""
        write_record(self._store.disk, self._path, record)
        self.record = record
        self._on_change()

    def note(self, record: UpdateRecord) -> None:
        """Take a record that is not worth a commit yet; a loss of power forgets what it says."""
        self.record = record
        self._on_change()

    def commit_or_settle_later(self, record: UpdateRecord) -> None:
        """Commit where the disk takes it; where it does not, `resume` finds the same after the next start."""
        try:
            self.commit(record)
        except OSError as error:
            log.warning("the record of the update could not be kept: %s", error)
            self.note(record)

    def commit_slots(self, slots: Slots) -> None:
        """Commit the slots."""
        try:
            self._store.write_slots(slots)
        except OSError:
            # A commit that fails late has taken place all the same.
            self.slots = self._store.read_slots() or Slots()
            raise
        self.slots = slots
        self._on_change()

    def progressed(self, sha256: str, verified_bytes: int) -> None:
        """Count what is here of a file that is being fetched."""
        self.progress.reached(sha256, verified_bytes)
        self._on_change()

    def found(self, sha256: str, found_bytes: int, verified_bytes: int) -> None:
        """Count what has come of it without a network."""
        self.progress.found(sha256, found_bytes, verified_bytes)
        self._on_change()

    def hinder(self, hindrance: Reason | None) -> None:
        """Note what stands in the way at the moment, None when nothing does."""
        if hindrance != self._hindrance:
            self._hindrance = hindrance
            self._on_change()

    def withdraw(self, reason: Reason, command_id: str | None, *, condemned: bool = True) -> None:
        """Go back to the previous bundle, in the slots and then, when this one is `condemned`, in the record."""
        withdrawn, wanted = self.slots.current, self.slots.roll_back(command_id)
        try:
            self.commit_slots(wanted)
        except OSError as error:
            if self.slots != wanted:
                raise
            log.warning("rolled back, though a loss of power might undo it: %s", error)
        if not condemned or withdrawn is None or self.record.bundle != withdrawn.bundle:
            return
        if (self.record.state, Event.WITHDRAWN) in TABLE:
            self.commit_or_settle_later(self.record.after(Event.WITHDRAWN, reason=reason))

    def resume(self) -> None:
        """Begin where the last process ended, before anything is served. Never raises."""
        if self.sealed is not None:
            return
        if self._lost_slots and self.record.state in _BESIDE_WHAT_SERVES:
            self._find_what_served()
        self._settle()
        if self.record.ended:
            return
        self.commit_or_settle_later(self.record.resumed())
        try:
            self.break_loop()
        except OSError as error:  # on a disk that takes nothing the model is tried once more
            log.warning("the bundle that brings the device down could not be given up yet: %s", error)

    def pause(self) -> None:
        """Note that the process ends in order: the present step is not what ends it. Never raises."""
        if self.sealed is None and not self.record.ended:
            self.commit_or_settle_later(self.record.paused())

    def break_loop(self) -> None:
        """Go back where the device goes down again and again with a new model serving."""
        record = self.record
        serving = self.slots.current is not None and self.slots.current.bundle == record.bundle
        if not (record.exhausted and serving and (record.state, Event.OFFENDED) in TABLE):
            return
        reason = went_down(record.state.value, MOST_BEGUN[record.state]).reason
        log.warning("generation %d: %s", record.generation, reason.message)
        self.commit(record.after(Event.OFFENDED, reason=reason))
        self.go_back()

    def go_back(self) -> None:
        """Make the previous bundle current, where the record says so and there is one."""
        current = self.slots.current
        if current is not None and current.bundle == self.record.bundle and self.slots.previous is not None:
            self.commit_slots(self.slots.roll_back())

    def _find_what_served(self) -> None:
        """Let serve what is installed, where the disk has lost which bundle that was."""
        unproven = self.record.bundle
        try:
            found = self._store.find_slots(None if unproven is None else unproven.manifest_sha256)
            if found.current is None:
                return  # a board that has never had one
            log.warning("the slots are lost: %s, which is installed, serves", found.current.bundle.id)
            self.commit_slots(found)
        except OSError as error:
            log.warning("the slots are lost, and what is installed cannot be found yet: %s", error)

    def _settle(self) -> None:
        """Make the record agree with the slots again, where a crash came between the two commits."""
        record, current = self.record, self.slots.current
        if record.state not in (State.CONFIRMED, State.PROBATION) or record.bundle is None:
            return
        if current is None:  # the slots could not be read
            lost = record.renew() if record.state is State.CONFIRMED else record.after(Event.LOST)
            self.commit_or_settle_later(lost)
        elif record.bundle != current.bundle:
            reason = Reason(code="rolled-back", message="rolled back, shortly before the agent went down")
            self.commit_or_settle_later(record.after(Event.WITHDRAWN, reason=reason))

    def collect(self) -> None:
        """Remove from the disk what no slot needs; what cannot be removed now is removed another time."""
        if self.sealed is not None:
            return
        try:
            self._store.collect(self.slots.manifests())
        except OSError as error:
            log.warning("could not remove what is no longer needed: %s", error)
