"""The metadata files of the repository: `metadata/`, laid out as TUF 1.0 wants with consistent snapshots.

What is current is what the timestamp says: it is written last, and a file that it does not lead to, which a crash may
have left, is overwritten. Nothing is verified here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from autoglm_edge_fleet.errors import BadMetadata, NoTrust
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.limits import LIMITS

METADATA_FOLDER = "metadata"
MODEL_PREFIX = "model-"
S = TypeVar("S", Root, Timestamp, Snapshot, Targets)
AnyMetadata = Metadata[Root] | Metadata[Timestamp] | Metadata[Snapshot] | Metadata[Targets]


class MetadataStore:
    """The metadata under the repository's folder."""

    def __init__(self, repository: Path, disk: Disk | None = None) -> None:
        self.directory = repository / METADATA_FOLDER
        self._disk = disk or Disk()

    @property
    def exists(self) -> bool:
        """Whether the fleet has a root."""
        return (self.directory / "1.root.json").is_file()

    def newest_root(self) -> int:
        """Return the version of the newest root, following the chain as a client does. Raises NoTrust."""
        version = 0
        while (self.directory / f"{version + 1}.root.json").is_file():
            version += 1
        if version == 0:
            raise NoTrust(f"the fleet has no keys yet: make them with `autoglm-edge fleet init {_fleet_of(self)}`")
        return version

    def read_bytes(self, name: str) -> bytes:
        """Return the bytes of a file. Raises BadMetadata."""
        try:
            with (self.directory / name).open("rb") as file:
                data = file.read(LIMITS.metadata_bytes + 1)
        except OSError as error:
            raise BadMetadata(f"{self.directory / name} cannot be read: {error.strerror}") from None
        if len(data) > LIMITS.metadata_bytes:
            raise BadMetadata(f"{self.directory / name} is larger than {LIMITS.metadata_bytes} bytes")
        return data

    def read(self, kind: type[S], name: str) -> Metadata[S]:
        """Return a file as what it must be. Raises BadMetadata."""
        return parse_metadata(kind, self.read_bytes(name), str(self.directory / name))

    def root(self) -> Metadata[Root]:
        """Return the newest root. Raises NoTrust, BadMetadata."""
        return self.read(Root, f"{self.newest_root()}.root.json")

    def write(self, role: str, metadata: AnyMetadata) -> None:
        """Write a role's metadata under its name. Raises BadMetadata when no device would take it, OSError."""
        data = to_bytes(metadata)
        if len(data) > LIMITS.metadata_bytes:
            raise BadMetadata(
                f"the metadata of {role} would have {len(data)} bytes, at most {LIMITS.metadata_bytes} go"
            )
        self._disk.make_directories(self.directory)
        self._disk.commit(self.directory / file_name(role, metadata.signed.version), data)


def file_name(role: str, version: int) -> str:
    """Return the name of a metadata file."""
    return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"


def to_bytes(metadata: AnyMetadata) -> bytes:
    """Return the file's bytes: the same for the same metadata."""
    return metadata.to_bytes(JSONSerializer(compact=True))


def parse_metadata(kind: type[S], data: bytes, where: str) -> Metadata[S]:
    """Read metadata of a kind. Raises BadMetadata."""
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
    except (RepositoryError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadMetadata(f"{where} is no TUF metadata: {str(error).splitlines()[0]}") from None
    if not isinstance(metadata.signed, kind):
        raise BadMetadata(f"{where} is the metadata of another role")
    return metadata


def _fleet_of(store: MetadataStore) -> Path:
    return store.directory.parent.parent
