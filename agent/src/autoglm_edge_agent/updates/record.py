"""The record of the update: persisted before each step, so that a restart continues where the power was lost."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from autoglm_edge_agent.updates.progress import Progress
from autoglm_edge_agent.updates.states import ENDED, Event, State, follow
from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, DesiredState, Reason
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import ProtocolError

MAX_TRIALS = 5
"""So many times a trial may be begun and not ended, before the bundle is held to be what brings the device down."""


class UpdateRecord(Document):
    """`update.json`. Frozen: each change gives a new record."""

    kind: ClassVar[str] = "update record"

    generation: int = 0
    bundle: BundleReference | None = None
    requested_variant: str | None = None
    variant: str | None = None
    """The variant that was chosen, once resolved."""
    state: State = State.IDLE
    trials: int = 0
    """How often a trial of this generation was begun."""
    total_bytes: int = 0
    present_bytes: int = 0
    fetched_bytes: int = 0
    """These two are kept once everything is fetched, so that a restart does not forget what it took."""
    reason: Reason | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do for this generation."""
        return self.state in ENDED

    def desire(self, desired: DesiredState) -> UpdateRecord:
        """Begin with a newer generation. Raises ValueError when the present state does not allow it."""
        state = follow(self.state, Event.DESIRED)
        return UpdateRecord(
            generation=desired.generation,
            bundle=desired.bundle,
            requested_variant=desired.variant,
            state=state,
        )

    def renew(self) -> UpdateRecord:
        """Begin again with the same generation, whose files were damaged on disk. Raises ValueError."""
        return UpdateRecord(
            generation=self.generation,
            bundle=self.bundle,
            requested_variant=self.requested_variant,
            state=follow(self.state, Event.DESIRED),
        )

    def after(self, event: Event, **changes: object) -> UpdateRecord:
        """Return the record after an event. Raises ValueError."""
        return self.model_copy(update={"reason": None, **changes, "state": follow(self.state, event)})

    def report(self, progress: Progress, hindrance: Reason | None) -> DeploymentReport | None:
        """Return what the fleet is told; `hindrance` is what stands in the way at the moment."""
        if self.state is State.IDLE:
            return None
        fetching = self.state in (State.RESOLVING, State.FETCHING)
        return DeploymentReport(
            generation=self.generation,
            bundle=self.bundle,
            phase=self.state.value,
            fetched_bytes=progress.fetched_bytes if fetching else self.fetched_bytes,
            total_bytes=self.total_bytes,
            present_bytes=progress.present_bytes if fetching else self.present_bytes,
            reason=self.reason or hindrance,
        )


def read_record(path: Path) -> UpdateRecord:
    """Return the persisted record; a fresh one when there is none or it cannot be understood. Raises OSError."""
    try:
        return parse(UpdateRecord, path.read_bytes())
    except (FileNotFoundError, ProtocolError):
        return UpdateRecord()


def write_record(disk: Disk, path: Path, record: UpdateRecord) -> None:
    """Commit the record. Raises OSError."""
    disk.commit(path, record.to_bytes())
