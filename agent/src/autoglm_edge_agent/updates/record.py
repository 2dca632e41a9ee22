"""The record of the update: persisted before each step, so that a restart continues where the power was lost."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from autoglm_edge_agent.storage.lost_bytes import read_kept
from autoglm_edge_agent.updates.probation import Baseline, Evidence
from autoglm_edge_agent.updates.progress import Progress
from autoglm_edge_agent.updates.states import ENDED, Event, State, follow
from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, DesiredState, Reason
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.probation import ProbationTerms

MOST_BEGUN: Mapping[State, int] = {
    State.RESOLVING: 20,
    State.FETCHING: 100,  # a board that loses its power every few minutes still gets on with a large download
    State.INSTALLING: 20,
    State.TRYING: 5,
    State.ACTIVATING: 5,
    State.PROBATION: 5,
}
"""How often each step may be begun for one generation, whether it comes to an end or not: what ends every loop.

Few where the model runs, because it may be what brings the device down; more where only files are handled. Going back
has no limit: there is nothing better to do instead."""


class UpdateRecord(Document):
    """`update.json`. Frozen: each change gives a new record.

    Version 1, of the first release, counted trials only and knew no probation.
    """

    kind: ClassVar[str] = "update record"
    newest_schema: ClassVar[int] = 2

    schema_version: int = Field(default=2, ge=1, strict=True)
    generation: int = 0
    bundle: BundleReference | None = None
    requested_variant: str | None = None
    probation: ProbationTerms | None = None
    """What the desired state asked for; None: the device's own terms."""
    variant: str | None = None
    """The variant that was chosen, once resolved."""
    contenders: tuple[str, ...] = ()
    """Variants that may run faster here, until that is measured."""
    state: State = State.IDLE
    begun: dict[State, int] = Field(default_factory=dict)
    """How often each step was begun for this generation, those that were ended in order left out."""
    total_bytes: int = 0
    present_bytes: int = 0
    fetched_bytes: int = 0
    """These two are kept once everything is fetched, so that a restart does not forget what it took."""
    baseline: Baseline = Baseline()
    """How the model did that served until the switch."""
    evidence: Evidence | None = None
    """What was seen since the switch."""
    reason: Reason | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do for this generation."""
        return self.state in ENDED

    @property
    def exhausted(self) -> bool:
        """Whether the present step was begun more often than it may be."""
        return self.begun.get(self.state, 0) > MOST_BEGUN.get(self.state, sys.maxsize)

    def desire(self, desired: DesiredState) -> UpdateRecord:
        """Begin with a newer generation. Raises ValueError when the present state does not allow it."""
        state = follow(self.state, Event.DESIRED)
        return UpdateRecord(
            generation=desired.generation,
            bundle=desired.bundle,
            requested_variant=desired.variant,
            probation=desired.probation,
            state=state,
            begun={state: 1},
        )

    def renew(self) -> UpdateRecord:
        """Begin again with the same generation, whose files were damaged on disk. Raises ValueError."""
        return UpdateRecord(
            generation=self.generation,
            bundle=self.bundle,
            requested_variant=self.requested_variant,
            probation=self.probation,
            state=follow(self.state, Event.DESIRED),
            begun={State.RESOLVING: 1},
        )

    def after(self, event: Event, **changes: object) -> UpdateRecord:
        """Return the record after an event; the step of the new state counts as begun. Raises ValueError."""
        state = follow(self.state, event)
        return self.model_copy(update={"reason": None, **changes, "state": state, "begun": self._counted(state, 1)})

    def decided(self, variant: str) -> UpdateRecord:
        """Return the record once it is known which of the contenders is run."""
        return self.model_copy(update={"variant": variant, "contenders": ()})

    def resumed(self) -> UpdateRecord:
        """Return the record after a start of the agent: the step is begun once more."""
        return self.model_copy(update={"begun": self._counted(self.state, 1)})

    def paused(self) -> UpdateRecord:
        """Return the record after an orderly stop: the step will be begun again, and nothing is wrong with it."""
        return self.model_copy(update={"begun": self._counted(self.state, -1)})

    def _counted(self, state: State, more: int) -> dict[State, int]:
        return {} if state in ENDED else {**self.begun, state: max(0, self.begun.get(state, 0) + more)}

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
            probation=self.evidence.report() if self.evidence else None,
            reason=self.reason or hindrance,
        )


class _FirstRecord(Document):
    """What the first release kept and this one keeps otherwise."""

    kind: ClassVar[str] = "update record"

    trials: int = 0


def read_record(path: Path) -> UpdateRecord:
    """Return the persisted record; a fresh one when there is none or it is damaged.

    Raises UnsupportedSchema when a newer release has written it, OSError.
    """
    try:
        data = read_kept(path)
        record = parse(UpdateRecord, data)
        return record if record.schema_version > 1 else _migrated(record, parse(_FirstRecord, data))
    except (FileNotFoundError, MalformedDocument):
        return UpdateRecord()


def _migrated(record: UpdateRecord, first: _FirstRecord) -> UpdateRecord:
    begun = {State.TRYING: first.trials} if first.trials else {}
    return record.model_copy(update={"schema_version": UpdateRecord.newest_schema, "begun": begun})


def write_record(disk: Disk, path: Path, record: UpdateRecord) -> None:
    """Commit the record. Raises OSError."""
    disk.commit(path, record.to_bytes())
