"""The keys and signed metadata of an opened fleet: what `custody` does, under the lock and in the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoglm_edge_fleet.audit import Detail, note_alone
from autoglm_edge_fleet.bundles import list_bundles
from autoglm_edge_fleet.database import Database
from autoglm_edge_fleet.keys import KEYS_FOLDER, KeyRing
from autoglm_edge_fleet.locks import exclusive
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.repository import REPOSITORY_FOLDER, Repository
from autoglm_edge_fleet.trust.custody import Custody, Foundation, RoleKey, RootChange, sign_root, utc_now
from autoglm_edge_fleet.trust.release import Refreshed, target_path
from autoglm_edge_fleet.trust.renewal import PUBLISH_LOCK
from autoglm_edge_fleet.trust.store import MODEL_PREFIX
from autoglm_edge_fleet.trust.verify import Verification
from autoglm_edge_protocol.deployment import BundleReference

_PUBLISH_WAIT_S = 60.0


class FleetTrust:
    """Every method raises TrustError (or NoTrust when there are no keys yet), InUse, StorageError and OSError."""

    def __init__(self, directory: Path, database: Database, passphrases: Passphrases) -> None:
        self._directory = directory
        self._database = database
        self._repository = Repository(directory / REPOSITORY_FOLDER)
        self._custody = Custody(directory / REPOSITORY_FOLDER, KeyRing(directory / KEYS_FOLDER, passphrases))

    @property
    def is_founded(self) -> bool:
        """Whether the fleet has keys."""
        return self._custody.is_founded

    @property
    def root_path(self) -> Path:
        """The first root: what devices are given."""
        return self._custody.root_path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of what changes the repository. Raises InUse."""
        refusal = f"another process is publishing into {self._directory}; try again when it is done"
        with exclusive(self._directory / PUBLISH_LOCK, refusal, _PUBLISH_WAIT_S):
            yield

    def found(self, wanted: Foundation) -> tuple[Path, ...]:
        """Make the keys and sign what was published before; returns the files of the root keys."""
        with self.locked():
            made = self._custody.found(wanted, utc_now())
            self._sign_listed()
            self._note("found", "root", keys=wanted.root_count, threshold=wanted.threshold, encrypted=not wanted.plain)
            return made

    def sign_bundle(self, reference: BundleReference) -> None:
        """Make a bundle a target. Only under the lock."""
        self._repository.name_target(reference.manifest_sha256, target_path(reference))
        self._custody.sign_bundles([reference], utc_now())

    def _sign_listed(self) -> int:
        references = [bundle.reference for bundle in list_bundles(self._database)]
        for reference in references:
            self._repository.name_target(reference.manifest_sha256, target_path(reference))
        return self._custody.sign_bundles(references, utc_now())

    def refresh(self, force: bool = False) -> Refreshed:
        """Sign again what is due, and sign what is published and was never signed."""
        with self.locked():
            self._sign_listed()
            done = self._custody.refresh(utc_now(), force)
            if done.roles:
                self._note("refresh", ", ".join(done.roles))
            return done

    def verify(self) -> Verification:
        """Walk the repository as a device does."""
        return self._custody.verify([bundle.reference for bundle in list_bundles(self._database)], utc_now())

    # keys ----

    def list_keys(self) -> tuple[RoleKey, ...]:
        """Return every key of every role."""
        return self._custody.list_keys()

    def rotate(
        self, role: str, new_key: str | None = None, plain: bool = False, sign_with: Sequence[str] = ()
    ) -> RootChange:
        """Give a role one new key; what is not a model's takes a new root, which `sign_with` signs as far as it can."""
        with self.locked():
            if role.startswith(MODEL_PREFIX):
                signed = self._custody.rotate_model(role, new_key, plain, utc_now())
                self._note("rotate", role, signed=", ".join(signed))
                return RootChange(0, None, ())
            change = self._custody.rotate(role, new_key, plain, utc_now())
            return self._begun(f"rotate {role}", change, sign_with)

    def rotate_root(
        self, replaced: Sequence[str], directory: Path, plain: bool = False, sign_with: Sequence[str] = ()
    ) -> RootChange:
        """Replace keys of the root itself, given by beginnings of their ids; none: all."""
        with self.locked():
            change = self._custody.rotate_root(replaced, directory, plain, utc_now())
            return self._begun("rotate root", change, sign_with)

    def renew_root(self, sign_with: Sequence[str] = ()) -> RootChange:
        """Give the root a new expiry and nothing else."""
        with self.locked():
            return self._begun("renew root", self._custody.renew_root(utc_now()), sign_with)

    def sign(self, sign_with: Sequence[str], copies: Iterable[Path] = ()) -> RootChange:
        """Sign the root that waits, add the signatures of copies of it, and install it when they are enough."""
        with self.locked():
            self._custody.take_signatures(copies)
            pending = self._custody.pending()
            assert pending is not None
            return self._begun("sign root", RootChange(0, pending, ()), sign_with)

    def _begun(self, action: str, change: RootChange, sign_with: Sequence[str]) -> RootChange:
        assert change.pending is not None
        signed = sign_root(change.pending, sign_with, self._custody.ring)
        done = self._custody.install_if_complete(utc_now())
        with_keys = ", ".join(keyid[:12] for keyid in signed)
        self._note(action, f"root {done.version}", signed_with=with_keys, installed=done.pending is None)
        return done

    def _note(self, action: str, subject: str, **details: Detail) -> None:
        note_alone(self._database, action, subject, **details)
