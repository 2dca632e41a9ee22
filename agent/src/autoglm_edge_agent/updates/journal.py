"""What is persisted of an update: the record and the slots as they are on disk, and the order in which they change.

Every change of either is one commit; where two belong together a crash between them is mended by `settle`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from autoglm_edge_agent.storage.slots import Slots
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.contents import read_manifest
from autoglm_edge_agent.updates.progress import Progress
from autoglm_edge_agent.updates.record import UpdateRecord, read_record, write_record
from autoglm_edge_agent.updates.states import TABLE, Event, State
from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, Installed, Reason
from autoglm_edge_protocol.manifest import Manifest, Variant

log = logging.getLogger(__name__)


class Journal:
    """The record and the slots of one device. Every method that commits may raise OSError.

    Args:
        on_change: called after every change that the fleet should hear of.
    """

    def __init__(self, store: Store, on_change: Callable[[], None]) -> None:
        self._store = store
        self._on_change = on_change
        self._path = store.directory / "update.json"
        self.record = read_record(self._path)
        self.slots = store.read_slots()
        self.progress = Progress()
        self._hindrance: Reason | None = None

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

    def report(self) -> DeploymentReport | None:
        """Return what the fleet is told about the update."""
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

    def commit_or_settle_later(self, record: UpdateRecord) -> None:
        """Commit where the disk takes it; where it does not, `settle` finds the same after the next start."""
        try:
            self.commit(record)
        except OSError as error:
            log.warning("the record of the update could not be kept: %s", error)
            self.record = record
            self._on_change()

    def commit_slots(self, slots: Slots) -> None:
        """Commit the slots."""
        try:
            self._store.write_slots(slots)
        except OSError:
            self.slots = self._store.read_slots()  # a commit that fails late has taken place all the same
            raise
        self.slots = slots
        self._on_change()

    def progressed(self, sha256: str, verified_bytes: int) -> None:
        """Count what is here of a file that is being fetched."""
        self.progress.reached(sha256, verified_bytes)
        self._on_change()

    def hinder(self, hindrance: Reason | None) -> None:
        """Note what stands in the way at the moment, None when nothing does."""
        if hindrance != self._hindrance:
            self._hindrance = hindrance
            self._on_change()

    def withdraw(self, reason: Reason, command_id: str | None) -> None:
        """Go back to the previous bundle, in the slots and then in the record."""
        withdrawn, wanted = self.slots.current, self.slots.roll_back(command_id)
        try:
            self.commit_slots(wanted)
        except OSError as error:
            if self.slots != wanted:
                raise
            log.warning("rolled back, though a loss of power might undo it: %s", error)
        if (self.record.state, Event.WITHDRAWN) in TABLE and withdrawn and self.record.bundle == withdrawn.bundle:
            self.commit_or_settle_later(self.record.after(Event.WITHDRAWN, reason=reason))

    def settle(self) -> None:
        """Make the record agree with the slots again, where a crash came between the two commits. Never raises."""
        record, current = self.record, self.slots.current
        if record.state is not State.CONFIRMED or record.bundle is None:
            return
        if current is None:  # the slots could not be read
            self.commit_or_settle_later(record.renew())
        elif record.bundle != current.bundle:
            reason = Reason(code="rolled-back", message="rolled back, shortly before the agent went down")
            self.commit_or_settle_later(record.after(Event.WITHDRAWN, reason=reason))

    def collect(self) -> None:
        """Remove from the disk what no slot needs; what cannot be removed now is removed another time."""
        try:
            self._store.collect(self.slots.manifests())
        except OSError as error:
            log.warning("could not remove what is no longer needed: %s", error)
