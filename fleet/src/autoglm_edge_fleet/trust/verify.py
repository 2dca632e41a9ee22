"""Looking at the repository as a device does: python-tuf's client, from the first root on, with no key at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Signed
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from autoglm_edge_fleet.errors import BadMetadata
from autoglm_edge_fleet.trust.catalogue import read_state
from autoglm_edge_fleet.trust.lifetimes import lifetime_of
from autoglm_edge_fleet.trust.release import target_path
from autoglm_edge_fleet.trust.roots import director_of
from autoglm_edge_fleet.trust.store import MetadataStore
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.limits import LIMITS

_PIECE_BYTES = 64 * 1024


class FolderFetcher(FetcherInterface):
    """Serves a client from a folder, as a web server would: `folder:///PATH` is PATH below it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = (self._directory / unquote(urlsplit(url).path).lstrip("/")).resolve()
        if not path.is_relative_to(self._directory) or not path.is_file():
            raise DownloadHTTPError(f"{path} is not there", 404)
        return self._pieces(path)

    def _pieces(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece


@dataclass(frozen=True)
class RoleStatus:
    """One role's newest metadata."""

    role: str
    version: int
    expires: datetime
    is_due: bool
    """Whether it should be signed again soon."""


@dataclass(frozen=True)
class Verification:
    """What a client found."""

    roles: tuple[RoleStatus, ...]
    bundles: int
    """Bundles whose manifests were found and are what was signed."""
    problems: tuple[str, ...]
    """Lines; empty: a device that trusts the first root would accept all of it."""


def verify_repository(repository: Path, bundles: Iterable[BundleReference], now: datetime) -> Verification:
    """Walk all of it. Raises NoTrust when there is no root at all."""
    store = MetadataStore(repository)
    store.newest_root()
    problems: list[str] = []
    found = 0
    with TemporaryDirectory(prefix="autoglm-verify-") as scratch:
        try:
            updater = client(repository, Path(scratch), store.read_bytes("1.root.json"))
            updater.refresh()
        except (RepositoryError, DownloadError, BadMetadata) as error:
            problems.append(explain(error))
        else:
            for reference in bundles:
                problem = _check_bundle(updater, reference)
                found += problem is None
                problems += [problem] if problem else []
    try:
        roles = _roles(store, now)
    except (BadMetadata, RepositoryError) as error:
        return Verification((), found, tuple(dict.fromkeys([*problems, explain(error)])))
    return Verification(roles, found, tuple(problems))


def client(repository: Path, scratch: Path, root: bytes) -> Updater:
    """Return python-tuf's client on a repository in a folder, with this project's limits. Raises RepositoryError."""
    (scratch / "metadata").mkdir(exist_ok=True)
    (scratch / "targets").mkdir(exist_ok=True)
    size = LIMITS.metadata_bytes
    config = UpdaterConfig(
        root_max_length=size, timestamp_max_length=size, snapshot_max_length=size, targets_max_length=size
    )
    return Updater(
        str(scratch / "metadata"),
        "folder:///metadata/",
        str(scratch / "targets"),
        "folder:///targets/",
        FolderFetcher(repository),
        config,
        bootstrap=root,
    )


def _check_bundle(updater: Updater, reference: BundleReference) -> str | None:
    path = target_path(reference)
    try:
        target = updater.get_targetinfo(path)
        if target is None:
            return f"{reference.id} is published, but not signed: publish it again"
        if (target.hashes.get("sha256"), target.length) != (reference.manifest_sha256, reference.manifest_size_bytes):
            return f"{reference.id} is signed with other content than is published"
        updater.download_target(target)
    except (RepositoryError, DownloadError) as error:
        return f"{reference.id}: {explain(error)}"
    return None


def explain(error: Exception) -> str:
    """Return one line for a person."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, ExpiredMetadataError):
        return f"{line}: `autoglm-edge fleet repository refresh` signs again what has expired"
    return line


def _roles(store: MetadataStore, now: datetime) -> tuple[RoleStatus, ...]:
    root = store.root()
    director_of(root.signed)
    state = read_state(store, root.signed.version, store.read_bytes("timestamp.json"))
    listed: list[RoleStatus] = [_status("root", root.signed, now)]
    for name, data in state.files.items():
        role = name.removesuffix(".json").partition(".")[2] or "timestamp"
        if role != "root":
            signed: Signed = Metadata.from_bytes(data).signed
            listed.append(_status(role, signed, now))
    return tuple(listed)


def _status(role: str, signed: Signed, now: datetime) -> RoleStatus:
    return RoleStatus(role, signed.version, signed.expires, lifetime_of(role).is_due(signed.expires, now))
