"""The shelf of metadata that devices fetch from: the current files by their digests, and the last few states of them.

Metadata is small and replaced under devices' hands; so its bytes are held in memory, and what a message of a moment ago
has named can still be fetched after a refresh.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuf.api.metadata import Snapshot, Timestamp

from autoglm_edge_fleet.repository import Repository
from autoglm_edge_fleet.trust.store import MODEL_PREFIX, MetadataStore, file_name, parse_metadata
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import MetadataFile

_STATES_KEPT = 8


@dataclass(frozen=True)
class Shelved:
    """One state of the repository."""

    newest_root: int
    expires: str
    """The day on which the timestamp expires: YYYY-MM-DD."""
    files: dict[str, bytes]
    """Name -> bytes, in the order in which a client reads them."""

    def catalogue(self, model: str | None) -> dict[str, MetadataFile]:
        """Return what a device needs that is to run this model (None: that is told something else)."""
        wanted = {
            name: MetadataFile(sha256=sha256_of(data), size_bytes=len(data))
            for name, data in self.files.items()
            if f".{MODEL_PREFIX}" not in name or (model and name.endswith(f".{MODEL_PREFIX}{model}.json"))
        }
        surplus = len(wanted) - LIMITS.metadata_files
        # The oldest roots go first: only a device that was off since then would need them, and gets them on a stick.
        return dict(list(wanted.items())[surplus:]) if surplus > 0 else wanted


class Shelf:
    """What is served now and was served lately."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._timestamp = b""
        self._newest_root = 0
        # Replaced, never changed: the event loop looks into it while a thread reloads.
        self._states: tuple[dict[str, bytes], ...] = ()
        self.current = Shelved(0, "", {})

    def reload(self) -> bool:
        """Take in the files as they are now; returns whether they have changed. Raises NoTrust, BadMetadata."""
        root, timestamp = self._store.newest_root(), self._store.read_bytes("timestamp.json")
        if (root, timestamp) == (self._newest_root, self._timestamp):
            return False
        state = read_state(self._store, root, timestamp)
        by_digest = {sha256_of(data): data for data in state.files.values()}
        self._states = (by_digest, *self._states[: _STATES_KEPT - 1])
        self._newest_root, self._timestamp, self.current = root, timestamp, state
        return True

    def find(self, sha256: str) -> bytes | None:
        """Return the file with this digest."""
        return next((state[sha256] for state in self._states if sha256 in state), None)


class ShelfAndObjects:
    """Metadata from the shelf, everything else from the repository."""

    def __init__(self, shelf: Shelf, repository: Repository) -> None:
        self._shelf = shelf
        self._repository = repository

    def holds(self, sha256: str, size_bytes: int) -> bool:
        """Return whether an object is there in its full size. Raises OSError."""
        return self._shelf.find(sha256) is not None or self._repository.holds(sha256, size_bytes)

    def read(self, sha256: str, offset: int, size_bytes: int) -> bytes:
        """Return bytes of an object. Raises OSError."""
        data = self._shelf.find(sha256)
        if data is not None:
            return data[offset : offset + size_bytes]
        return self._repository.read(sha256, offset, size_bytes)


def read_state(store: MetadataStore, newest_root: int, timestamp: bytes) -> Shelved:
    """Read all files that a timestamp leads to. Raises BadMetadata."""
    names = [file_name("root", version) for version in range(1, newest_root + 1)]
    files = {name: store.read_bytes(name) for name in names} | {"timestamp.json": timestamp}
    signed = parse_metadata(Timestamp, timestamp, "timestamp.json").signed
    snapshot_name = file_name("snapshot", signed.snapshot_meta.version)
    files[snapshot_name] = store.read_bytes(snapshot_name)
    snapshot = parse_metadata(Snapshot, files[snapshot_name], snapshot_name).signed
    for name, meta in sorted(snapshot.meta.items(), key=lambda item: (item[0] != "targets.json", item[0])):
        file = file_name(name.removesuffix(".json"), meta.version)
        files[file] = store.read_bytes(file)
    return Shelved(newest_root, signed.expires.date().isoformat(), files)
