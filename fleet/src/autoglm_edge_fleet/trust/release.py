"""The state of the repository that the timestamp leads to: loaded, changed, signed again and written.

Everything is signed before anything is written, and the timestamp is written last: whatever dies in between, clients
see the old state or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from autoglm_edge_fleet.errors import BadMetadata, KeyUnavailable, TrustError
from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.trust.lifetimes import lifetime_of
from autoglm_edge_fleet.trust.store import MODEL_PREFIX, MetadataStore, file_name, to_bytes
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.manifest import MANIFEST_PATH

S = TypeVar("S", Timestamp, Snapshot, Targets)
Signed = Metadata[Timestamp] | Metadata[Snapshot] | Metadata[Targets]


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did."""

    roles: tuple[str, ...]
    """Signed again."""
    problems: tuple[str, ...]
    """Lines about what was due and could not be signed."""


class Release:
    """The signed state, and the keys to change it with."""

    def __init__(self, store: MetadataStore, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self.root: Root = store.root().signed
        self._signed: dict[str, Signed] = {}
        self.timestamp = Timestamp()
        self.snapshot = Snapshot()
        self.targets = Targets()
        self.models: dict[str, Targets] = {}
        self._changed: set[str] = set()
        if (store.directory / "timestamp.json").is_file():
            self._load()

    def _load(self) -> None:
        self.timestamp = self._take("timestamp", self._store.read(Timestamp, "timestamp.json"))
        version = self.timestamp.snapshot_meta.version
        self.snapshot = self._take("snapshot", self._store.read(Snapshot, file_name("snapshot", version)))
        for name, meta in self.snapshot.meta.items():
            role = name.removesuffix(".json")
            targets = self._take(role, self._store.read(Targets, file_name(role, meta.version)))
            if role == "targets":
                self.targets = targets
            else:
                self.models[role] = targets

    def _take(self, role: str, metadata: Metadata[S]) -> S:
        self._signed[role] = metadata
        return metadata.signed

    # changes ----

    def add_bundle(self, reference: BundleReference) -> bool:
        """Make a bundle a target of its model's role, which is delegated when it is the first; False: it is there.

        Raises BadMetadata when the name and version stand for other bytes already.
        """
        role, path = MODEL_PREFIX + reference.name, target_path(reference)
        if role not in self.models:
            self._delegate(role, f"{reference.name}/*/{MANIFEST_PATH}")
        targets = self.models[role].targets
        if path in targets:
            if targets[path].hashes != {"sha256": reference.manifest_sha256}:
                raise BadMetadata(f"{reference.id} is signed with other content: raise its version")
            return False
        custom = {"custom": {"name": reference.name, "version": reference.version}}
        hashes = {"sha256": reference.manifest_sha256}
        targets[path] = TargetFile(reference.manifest_size_bytes, hashes, path, custom)
        self._changed.add(role)
        return True

    def _delegate(self, role: str, pattern: str) -> None:
        delegated = DelegatedRole(role, [], 1, terminating=True, paths=[pattern])
        if self.targets.delegations is None:
            self.targets.delegations = Delegations({}, {})
        assert self.targets.delegations.roles is not None
        self.targets.delegations.roles[role] = delegated
        keyids = self.root.roles["targets"].keyids
        delegated.threshold = self.root.roles["targets"].threshold
        for keyid in keyids:
            self.targets.add_key(self.root.keys[keyid], role)
        self.models[role] = Targets()
        self._changed |= {role, "targets"}

    def give_model(self, role: str, key: Key) -> None:
        """Let this key, and no other, sign for a model. Raises TrustError for a model that has no bundle."""
        if role not in self.models:
            raise TrustError(f"there is no role {role}: publish a bundle of the model first")
        for keyid in list(self.targets.get_delegated_role(role).keyids):
            self.targets.revoke_key(keyid, role)
        self.targets.add_key(key, role)
        self.targets.get_delegated_role(role).threshold = 1
        self._changed |= {role, "targets"}

    def mark_due(self, now: datetime, force: bool = False) -> None:
        """Mark what expires soon or is not signed by whom it must be; `force`: the timestamp and snapshot anyway."""
        for role in ("targets", *self.models, "snapshot", "timestamp"):
            if self._is_due(role, now) or (force and role in ("snapshot", "timestamp")):
                self._changed.add(role)

    def leave_out(self, roles: Iterable[str]) -> None:
        """Take back that these are due."""
        self._changed -= set(roles)

    def _is_due(self, role: str, now: datetime) -> bool:
        metadata = self._signed.get(role)
        if metadata is None or lifetime_of(role).is_due(metadata.signed.expires, now):
            return True
        try:
            self._delegator(role).verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError):
            return True
        return False

    # signing ----

    def commit(self, now: datetime) -> tuple[str, ...]:
        """Sign and write what has changed, and what follows from it; returns the roles.

        Raises KeyUnavailable, WrongPassphrase: nothing is written then. BadMetadata, OSError.
        """
        models = sorted(self._changed - {"targets", "snapshot", "timestamp"})
        order = [*models, *(["targets"] if "targets" in self._changed else [])]
        metadata: dict[str, Signed] = {}
        for role in order:
            targets = self._sign(role, self._targets(role), now)
            self.snapshot.meta[f"{role}.json"] = _meta_file(targets)
            metadata[role] = targets
        if metadata or "snapshot" in self._changed:
            snapshot = self._sign("snapshot", self.snapshot, now)
            self.timestamp.snapshot_meta = _meta_file(snapshot)
            metadata["snapshot"] = snapshot
        if metadata or "timestamp" in self._changed:
            metadata["timestamp"] = self._sign("timestamp", self.timestamp, now)
        for role, signed in metadata.items():
            self._store.write(role, signed)
        self._signed |= metadata
        self._changed.clear()
        return tuple(metadata)

    def _targets(self, role: str) -> Targets:
        return self.targets if role == "targets" else self.models[role]

    def _delegator(self, role: str) -> Root | Targets:
        return self.root if role in ("targets", "snapshot", "timestamp") else self.targets

    def _sign(self, role: str, signed: S, now: datetime) -> Metadata[S]:
        if role in self._signed:
            signed.version += 1
        signed.expires = lifetime_of(role).expiry(now)
        metadata = Metadata(signed)
        delegator = self._delegator(role)
        wanted = delegator.get_delegated_role(role)
        problems: list[KeyUnavailable] = []
        for keyid in wanted.keyids:
            try:
                metadata.sign(self._ring.signer(delegator.get_key(keyid)), append=True)
            except KeyUnavailable as error:
                problems.append(error)
            except UnsignedMetadataError as error:  # whatever a module or a service behind a key has to say
                problems.append(KeyUnavailable(f"key {keyid[:12]} does not sign: {str(error).splitlines()[0]}"))
        if len(metadata.signatures) < wanted.threshold:
            reason = problems[0] if problems else f"{wanted.threshold} keys must sign"
            raise KeyUnavailable(f"{role} cannot be signed: {reason}")
        return metadata


def _meta_file(metadata: Metadata[Targets] | Metadata[Snapshot]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, to_bytes(metadata), ["sha256"])


def target_path(reference: BundleReference) -> str:
    """Return the path of a bundle as a target."""
    return f"{reference.name}/{reference.version}/{MANIFEST_PATH}"


def refresh(store: MetadataStore, ring: KeyRing, now: datetime, force: bool = False) -> Refreshed:
    """Sign again what is due, as far as the keys are at hand. Raises NoTrust, BadMetadata, WrongPassphrase, OSError.

    What needs no rarely used key does not wait for one: without a fresh timestamp all devices would wait.
    """
    problems: list[str] = []
    left_out: tuple[str, ...] = ()
    while True:
        release = Release(store, ring)  # anew each time: a failed commit leaves the one in memory half changed
        release.mark_due(now, force)
        release.leave_out(left_out)
        try:
            return Refreshed(release.commit(now), tuple(problems))
        except KeyUnavailable as error:
            problems.append(str(error))
        if "snapshot" in left_out:
            return Refreshed((), tuple(problems))
        left_out = (*left_out, "snapshot") if left_out else ("targets", *release.models)
