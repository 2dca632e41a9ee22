"""What is kept of probes: one file a bundle, each candidate noted before it is tried.

A candidate that takes the whole board down is so found at the next start, and not tried for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from autoglm_edge_agent.inference.measurement import Measured
from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_protocol.documents import Document, Part, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import ProtocolError

MOST_ENTRIES = 4
_FILE_BYTES = 1024 * 1024
"""More than `MOST_ENTRIES` of as many candidates as are tried, each with the longest reason not to use it."""
MOST_BEGINNINGS = 2
"""A candidate during which the agent or the board ended so often is disqualified."""


class Attempt(Part):
    """A candidate that is being tried."""

    plan: Plan
    beginnings: int = 1


class Entry(Part):
    """The candidates of one variant with these runtimes on this hardware."""

    key: str
    measured: tuple[Measured, ...] = ()
    attempt: Attempt | None = None
    done: bool = False

    def begin(self, plan: Plan) -> Entry:
        """Note that a candidate is tried now."""
        again = self.attempt is not None and self.attempt.plan == plan
        beginnings = self.attempt.beginnings + 1 if self.attempt is not None and again else 1
        return self.model_copy(update={"attempt": Attempt(plan=plan, beginnings=beginnings)})

    def end(self, measured: Measured) -> Entry:
        """Note what came of it."""
        return self.model_copy(update={"measured": (*self.measured, measured), "attempt": None})

    def gives_up(self, plan: Plan) -> bool:
        """Whether a candidate was begun so often that it is not begun again."""
        return self.attempt is not None and self.attempt.plan == plan and self.attempt.beginnings >= MOST_BEGINNINGS


class Probed(Document):
    """`probes/<manifest sha256>.json`."""

    kind: ClassVar[str] = "probed candidates"

    entries: tuple[Entry, ...] = Field(default=(), max_length=MOST_ENTRIES)
    """The latest last."""

    def entry(self, key: str) -> Entry:
        """Return the entry with this key, an empty one where there is none."""
        return next((entry for entry in self.entries if entry.key == key), Entry(key=key))

    def put(self, entry: Entry) -> Probed:
        """Put an entry in the place of the one with its key, forgetting the oldest where there are too many."""
        others = tuple(other for other in self.entries if other.key != entry.key)
        return self.model_copy(update={"entries": (*others, entry)[-MOST_ENTRIES:]})


class Shelf:
    """The files of all bundles. Every method that writes may raise OSError."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk

    def read(self, manifest_sha256: str) -> Probed:
        """Return what is kept of a bundle; nothing where the file is missing, damaged or of a newer release."""
        try:
            return parse(Probed, self._path(manifest_sha256).read_bytes(), _FILE_BYTES)
        except (OSError, ProtocolError):
            return Probed()

    def write(self, manifest_sha256: str, probed: Probed) -> None:
        """Keep it."""
        self._disk.make_directories(self._directory)
        self._disk.commit(self._path(manifest_sha256), probed.to_bytes())

    def graphs(self, manifest_sha256: str) -> Path:
        """Return the folder for what runtimes make of the bundle for this device."""
        return self._directory / f"{manifest_sha256}.graphs"

    def _path(self, manifest_sha256: str) -> Path:
        return self._directory / f"{manifest_sha256}.json"
