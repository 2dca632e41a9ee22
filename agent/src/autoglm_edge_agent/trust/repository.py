"""TUF's client workflow by python-tuf: from the trusted root to the length and the digest of one manifest.

Loaded in the verifier's process only. What can be fetched and from where is behind a callable; what was verified lies
in the working directory afterwards, under TUF's names, and is the caller's to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from autoglm_edge_agent.trust.decision import Distrust
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import MANIFEST_PATH

_T = TypeVar("_T")
_S = TypeVar("_S", Root, Timestamp)

Fetch = Callable[[str, int], bytes | None]
"""(name of a metadata file, its greatest length in bytes) -> its bytes; None: there is none. Raises TooLarge."""


class TooLarge(Exception):
    """A file that is larger than it may be, by whoever was asked for it."""


_CODES: tuple[tuple[type[Exception], str], ...] = (
    (ExpiredMetadataError, "metadata-expired"),
    (BadVersionNumberError, "rollback-attack"),
    (LengthOrHashMismatchError, "metadata-mismatch"),
    (UnsignedMetadataError, "untrusted-metadata"),
    (DownloadLengthMismatchError, "metadata-too-large"),
    (DownloadHTTPError, "metadata-missing"),
    (RepositoryError, "bad-metadata"),
)
_MOST_ROOTS = LIMITS.metadata_files
_MOST_DELEGATIONS = 8
_CONFIG = UpdaterConfig(
    max_root_rotations=_MOST_ROOTS,
    max_delegations=_MOST_DELEGATIONS,
    root_max_length=LIMITS.metadata_bytes,
    timestamp_max_length=LIMITS.metadata_bytes,
    snapshot_max_length=LIMITS.metadata_bytes,
    targets_max_length=LIMITS.metadata_bytes,
)


class _Fetcher(FetcherInterface):
    def __init__(self, fetch: Fetch) -> None:
        self._fetch_file = fetch

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = unquote(urlsplit(url).path).lstrip("/")
        try:
            data = self._fetch_file(name, LIMITS.metadata_bytes)
        except TooLarge:
            raise DownloadLengthMismatchError(f"{name} is larger than {LIMITS.metadata_bytes} bytes") from None
        if data is None:
            raise DownloadHTTPError(f"{name} cannot be had", 404)
        return iter([data])


class Repository:
    """The metadata in a directory that holds at least `root.json`, trusted. Raises Distrust when that is no root."""

    def __init__(self, directory: Path, fetch: Fetch) -> None:
        self._directory = directory
        self._fetch = fetch
        try:
            self.root = _read(Root, (directory / "root.json").read_bytes())
            self._updater = Updater(
                str(directory), "agent:///", fetcher=_Fetcher(fetch), config=_CONFIG, bootstrap=None
            )
        except (RepositoryError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Distrust("bad-root", f"the root metadata of this device cannot be used: {_line(error)}") from None

    def timestamp(self) -> Timestamp | None:
        """Return the newest timestamp that was verified."""
        try:
            return _read(Timestamp, (self._directory / "timestamp.json").read_bytes())
        except (OSError, RepositoryError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def refresh(self, time: float) -> None:
        """Follow the roots, take timestamp, snapshot and targets, as of a Unix time in seconds. Raises Distrust."""
        # The client has no public way to be told the time, and takes that of a clock that may stand at 1970.
        self._updater._trusted_set.reference_time = datetime.fromtimestamp(time, timezone.utc)
        try:
            self._guarded(self._updater.refresh)
        finally:
            self.root = _read(Root, (self._directory / "root.json").read_bytes())

    def check_bundle(self, reference: BundleReference) -> None:
        """Check that the manifest of a bundle is signed as what the reference says. Raises Distrust."""
        path = f"{reference.name}/{reference.version}/{MANIFEST_PATH}"
        target = self._guarded(lambda: self._updater.get_targetinfo(path))
        if target is None:
            raise Distrust("unknown-target", f"{reference.id} is not in the signed metadata of the repository")
        if (target.length, target.hashes.get("sha256")) != (reference.manifest_size_bytes, reference.manifest_sha256):
            raise Distrust("wrong-target", f"{reference.id} is signed with another content than is desired")

    def check_fresh(self, time: float) -> None:
        """Check that root and timestamp are here and have not expired by then. Raises Distrust."""
        moment, timestamp = datetime.fromtimestamp(time, timezone.utc), self.timestamp()
        if timestamp is None:
            raise Distrust("metadata-missing", "no timestamp.json was ever seen")
        for each in (self.root, timestamp):
            if each.is_expired(moment):
                raise Distrust("metadata-expired", f"{each.type}.json has expired")

    def verifies(self, keyid: str, signature: bytes, data: bytes) -> bool:
        """Whether a key that the root names has made this signature."""
        key = self.root.keys.get(keyid)
        if key is None:
            return False
        try:
            key.verify_signature(Signature(keyid, signature.hex()), data)
        except (UnverifiedSignatureError, VerificationError, ValueError, KeyError, TypeError):
            return False  # also of a kind of key that no envelope can be signed with
        return True

    def _guarded(self, step: Callable[[], _T]) -> _T:
        try:
            return step()
        except (RepositoryError, DownloadError) as error:
            code = next((code for kind, code in _CODES if isinstance(error, kind)), "bad-metadata")
            raise Distrust(code, f"the repository's metadata is refused: {_line(error)}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Distrust("bad-metadata", f"the repository's metadata cannot be understood: {_line(error)}") from None


def _read(kind: type[_S], data: bytes) -> _S:
    signed = Metadata.from_bytes(data).signed
    if not isinstance(signed, kind):
        raise RepositoryError(f"it is a {signed.type}, not a {kind.__name__.lower()}")
    return signed


def _line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return "".join(character if character.isprintable() else "?" for character in text[:500])
