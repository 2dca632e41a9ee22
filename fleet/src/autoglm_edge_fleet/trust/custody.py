"""What the owner does with keys and signed metadata: found, publish, replace a key, sign, renew, look.

A change of the root is begun in `pending/`, signed there or on other machines by as many keys as must, and installed by
whoever brings the last signature; until then nothing has changed for anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from securesystemslib.signer import GPGKey
from tuf.api.metadata import Key, Metadata, Root

from autoglm_edge_fleet.errors import AlreadyAFleet, BadMetadata, TrustError
from autoglm_edge_fleet.key_files import file_signer, make_key_file
from autoglm_edge_fleet.keys import KeyRing, open_signer, public_key_of
from autoglm_edge_fleet.trust.release import Refreshed, Release, refresh
from autoglm_edge_fleet.trust.roots import (
    DIRECTOR,
    ONLINE_ROLES,
    check_successor,
    first_root,
    keyids_of,
    missing_signatures,
    next_root,
    with_keys,
)
from autoglm_edge_fleet.trust.store import MODEL_PREFIX, MetadataStore, file_name, parse_metadata, to_bytes
from autoglm_edge_fleet.trust.verify import Verification, verify_repository
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.limits import LIMITS

PENDING_FOLDER = "pending"
ROOT_KEYS = 3
ROOT_THRESHOLD = 2


@dataclass(frozen=True)
class Foundation:
    """What is wanted of the first keys."""

    root_keys: Path
    """Folder for the files of the root keys, to be taken offline."""
    root_count: int = ROOT_KEYS
    threshold: int = ROOT_THRESHOLD
    uris: Mapping[str, str] | None = None
    """Role -> URI of a key that is there already; the others are made."""
    plain: bool = False
    """Not encrypted: for tests and demonstrations."""


@dataclass(frozen=True)
class RoleKey:
    """A key of a role, and where its private half is."""

    role: str
    keyid: str
    threshold: int
    place: str


@dataclass(frozen=True)
class RootChange:
    """How far a change of the root is."""

    version: int
    pending: Path | None
    """The file that waits for signatures; None: it is installed."""
    missing: tuple[str, ...]
    """What signatures are lacking."""


def utc_now() -> datetime:
    """Return the time by the machine's clock, as TUF writes it."""
    return datetime.now(timezone.utc)


class Custody:
    """The keys and the metadata of the fleet in a folder. One process at a time; the caller holds the lock."""

    def __init__(self, repository: Path, ring: KeyRing, disk: Disk | None = None) -> None:
        self._repository = repository
        self._disk = disk or Disk()
        self._store = MetadataStore(repository, self._disk)
        self.ring = ring

    @property
    def is_founded(self) -> bool:
        """Whether there is a root."""
        return self._store.exists

    @property
    def root_path(self) -> Path:
        """The first root: what devices are given."""
        return self._store.directory / "1.root.json"

    def found(self, wanted: Foundation, now: datetime) -> tuple[Path, ...]:
        """Make the keys and the first metadata; returns the files of the root keys.

        Raises AlreadyAFleet, TrustError, OSError.
        """
        if self.is_founded:
            raise AlreadyAFleet(f"{self._repository.parent} has keys already: see `autoglm-edge fleet keys list`")
        if not 1 <= wanted.threshold <= wanted.root_count <= LIMITS.signatures:
            raise TrustError(f"{wanted.threshold} of {wanted.root_count} root keys make no sense")
        uris = dict(wanted.uris or {})
        others = {r: self._key(r, uris.get(r), wanted.plain) for r in ONLINE_ROLES}
        self.ring.directory.chmod(0o700)
        made = [
            self._make_root_key(wanted.root_keys, n, wanted.root_count, wanted.plain) for n in range(wanted.root_count)
        ]
        root = Metadata(first_root([key for _, key in made], wanted.threshold, others, now))
        for path, key in made:
            root.sign(file_signer(path, key, self.ring.passphrases), append=True)
        self._store.write("root", root)
        refresh(self._store, self.ring, now)
        return tuple(path for path, _ in made)

    def _key(self, role: str, uri: str | None, plain: bool) -> Key:
        """Return the public half of a role's key, which is made where no URI names one. Raises TrustError, OSError."""
        if uri is None:
            return self.ring.make(role, plain)
        if role == DIRECTOR and isinstance(public_key_of(uri, self.ring.passphrases)[1], GPGKey):
            # An envelope carries a signature's bytes alone, and one of GnuPG cannot be checked without its headers.
            raise TrustError(f"{uri} cannot be the director's key: GnuPG's signatures do not fit into an envelope")
        return self.ring.adopt(uri)

    def _make_root_key(self, directory: Path, number: int, count: int, plain: bool) -> tuple[Path, Key]:
        passphrases, is_there = None if plain else self.ring.passphrases, directory.is_dir()
        made = make_key_file(directory, "root", f"root key {number + 1} of {count}", passphrases, self._disk)
        if not is_there:  # another may be a stick, or a folder that others work in; the file itself is private anyway
            directory.chmod(0o700)
        return made

    # bundles and renewal ----

    def sign_bundles(self, references: Iterable[BundleReference], now: datetime) -> int:
        """Make bundles targets; returns how many were none yet. Raises TrustError, OSError."""
        release = Release(self._store, self.ring)
        added = sum([release.add_bundle(reference) for reference in references])
        if added:
            release.commit(now)
        return added

    def refresh(self, now: datetime, force: bool = False) -> Refreshed:
        """Sign again what is due. Raises NoTrust, BadMetadata, WrongPassphrase, OSError."""
        return refresh(self._store, self.ring, now, force)

    def verify(self, bundles: Iterable[BundleReference], now: datetime) -> Verification:
        """Walk the repository as a device does. Raises NoTrust."""
        return verify_repository(self._repository, bundles, now)

    # keys ----

    def list_keys(self) -> tuple[RoleKey, ...]:
        """Return every key of every role. Raises NoTrust, BadMetadata."""
        release = Release(self._store, self.ring)
        listed = []
        for role in ("root", *ONLINE_ROLES):
            keyids, threshold = keyids_of(release.root, role)
            listed += [RoleKey(role, keyid, threshold, self._place(role, keyid)) for keyid in keyids]
        for role in sorted(release.models):
            delegated = release.targets.get_delegated_role(role)
            listed += [RoleKey(role, k, delegated.threshold, self.ring.describe(k)) for k in delegated.keyids]
        return tuple(listed)

    def _place(self, role: str, keyid: str) -> str:
        place = self.ring.describe(keyid)
        return "offline, with its holder" if role == "root" and place == "elsewhere" else place

    def rotate_model(self, role: str, new_key: str | None, plain: bool, now: datetime) -> tuple[str, ...]:
        """Give a model a key of its own, or a new one; returns what was signed again. Raises TrustError, OSError."""
        release = Release(self._store, self.ring)
        if not role.startswith(MODEL_PREFIX) or role not in release.models:
            raise self._unknown(role)
        release.give_model(role, self.ring.adopt(new_key) if new_key else self.ring.make(role, plain))
        return release.commit(now)

    def _unknown(self, role: str) -> TrustError:
        known = ", ".join(("root", *ONLINE_ROLES, *sorted(Release(self._store, self.ring).models)))
        return TrustError(f"there is no role {role!r}; there are: {known}")

    def begin_root(self, now: datetime) -> Root:
        """Return the next root, equal to the current one but for version and expiry. Raises TrustError."""
        if pending := self.pending():
            raise TrustError(f"{pending} waits for signatures: `fleet keys sign`, or remove it")
        return next_root(self._store.root().signed, now)

    def rotate(self, role: str, new_key: str | None, plain: bool, now: datetime) -> RootChange:
        """Begin a root in which a role has one new key instead of its old ones. Raises TrustError, OSError."""
        if role not in ONLINE_ROLES:
            raise self._unknown(role)
        root = self.begin_root(now)
        with_keys(root, role, [self._key(role, new_key, plain)], 1)
        return self._pend(Metadata(root))

    def rotate_root(self, replaced: Sequence[str], directory: Path, plain: bool, now: datetime) -> RootChange:
        """Begin a root in which some of root's own keys (beginnings of ids; none: all) give way to new ones.

        The new ones are made in `directory`. Raises TrustError, OSError.
        """
        root = self.begin_root(now)
        old = root.roles["root"].keyids
        leaving = [keyid for keyid in old if not replaced or any(keyid.startswith(each) for each in replaced)]
        if unknown := [each for each in replaced if not any(keyid.startswith(each) for keyid in old)]:
            raise TrustError(f"no root key begins with {unknown[0]!r}; there are: {', '.join(k[:12] for k in old)}")
        new = [self._make_root_key(directory, n, len(leaving), plain)[1] for n in range(len(leaving))]
        staying = [root.keys[keyid] for keyid in old if keyid not in leaving]
        with_keys(root, "root", [*staying, *new], root.roles["root"].threshold)
        return self._pend(Metadata(root))

    def renew_root(self, now: datetime) -> RootChange:
        """Begin a root that differs in its expiry only. Raises TrustError, OSError."""
        return self._pend(Metadata(self.begin_root(now)))

    def pending(self) -> Path | None:
        """Return the root that waits for signatures."""
        path = self._repository / PENDING_FOLDER / file_name("root", self._store.newest_root() + 1)
        return path if path.is_file() else None

    def _pend(self, root: Metadata[Root]) -> RootChange:
        path = self._repository / PENDING_FOLDER / file_name("root", root.signed.version)
        self._disk.make_directories(path.parent)
        self._disk.commit(path, to_bytes(root))
        return RootChange(root.signed.version, path, tuple(missing_signatures(self._store.root().signed, root)))

    def take_signatures(self, files: Iterable[Path]) -> None:
        """Add the signatures of copies of the pending root that were signed elsewhere. Raises TrustError, OSError."""
        path = self._require_pending()
        root = read_root(path)
        for file in files:
            copy = read_root(file)
            if copy.signed_bytes != root.signed_bytes:
                raise BadMetadata(f"{file} is not a copy of {path}")
            root.signatures.update(copy.signatures)
        self._disk.commit(path, to_bytes(root))

    def install_if_complete(self, now: datetime) -> RootChange:
        """Make the pending root the newest when enough have signed, and sign again what follows from it.

        Raises TrustError when none is pending or it may not follow, KeyUnavailable, OSError.
        """
        path = self._require_pending()
        root = read_root(path)
        previous = self._store.root().signed
        if missing := missing_signatures(previous, root):
            return RootChange(root.signed.version, path, tuple(missing))
        check_successor(previous, root)
        self._store.write("root", root)
        self._disk.unlink(path)
        refreshed = self.refresh(now, force=True)
        return RootChange(root.signed.version, None, refreshed.problems)

    def _require_pending(self) -> Path:
        path = self.pending()
        if path is None:
            raise TrustError("no root waits for signatures: begin one with `autoglm-edge fleet keys rotate ROLE`")
        return path


def read_root(path: Path) -> Metadata[Root]:
    """Read a root, complete or not. Raises BadMetadata."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadMetadata(f"{path} cannot be read: {error.strerror}") from None
    return parse_metadata(Root, data, str(path))


def sign_root(path: Path, key_uris: Iterable[str], ring: KeyRing) -> tuple[str, ...]:
    """Sign a root in a file, on any machine, with keys by URI or path; returns their ids.

    Raises KeyUnavailable, WrongPassphrase, BadMetadata, OSError.
    """
    root = read_root(path)
    signed = []
    for uri in key_uris:
        kept, key = public_key_of(uri, ring.passphrases)
        root.sign(open_signer(kept, key, ring.passphrases, ring.directory), append=True)
        signed.append(key.keyid)
    Disk().commit(path, to_bytes(root))
    return tuple(signed)
