"""A TUF repository and a director in memory: sign on demand, honestly or as an attacker would.

Made with python-tuf's own metadata classes and nothing of the fleet's, so that it serves where only the agent is
installed. Its keys are made anew in each test run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import cache
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import BundleReference, DesiredState
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.envelopes import Envelope, seal
from autoglm_edge_protocol.signed import DIRECTOR_FIELD, PAYLOAD_TYPES, MetadataFile, SignedMessage

ROLES = ("root", "targets", "snapshot", "timestamp")
DAY_S = 86_400.0


@cache
def fresh_signer(name: str) -> CryptoSigner:
    """Return the ed25519 key of this name, made in this run."""
    return CryptoSigner.generate_ed25519()


class FakeRepository:
    """A repository with consistent snapshots, two of three root keys, one key for each other role, and a director.

    Fields may be changed at will; `publish` signs what is there now and makes it current.
    """

    def __init__(self, owner: str = "owner", lifetime_s: float = 30 * DAY_S) -> None:
        self.root_signers = [fresh_signer(f"{owner}-root-{number}") for number in range(3)]
        self.signers = {role: fresh_signer(f"{owner}-{role}") for role in (*ROLES[1:], "models")}
        self.directors = [fresh_signer(f"{owner}-director")]
        self.director_threshold = 1
        self.lifetime_s = lifetime_s
        self.lifetimes_s: dict[str, float] = {}
        """Of the roles that differ, from the next time that they are signed."""
        self.now = datetime.now(timezone.utc).timestamp()
        self.files: dict[str, bytes] = {}
        """Every metadata file that was ever made, by its name."""
        self.root = Root(consistent_snapshot=True, expires=self._expiry("root"))
        self.targets = Targets()
        self.models: dict[str, Targets] = {}
        self.snapshot = Snapshot()
        self.timestamp = Timestamp()
        self.name_keys()
        self.publish_root()
        self.publish()

    def _expiry(self, role: str) -> datetime:
        usual_s = self.lifetime_s * (12 if role == "root" else 1)
        at = self.now + self.lifetimes_s.get(role, usual_s)
        return datetime.fromtimestamp(at, timezone.utc).replace(microsecond=0)

    # roots ----

    def name_keys(self) -> None:
        """Let the root name the keys that are in the fields now."""
        for role in ROLES:
            self.root.roles[role].keyids.clear()
        for signer in self.root_signers:
            self.root.add_key(signer.public_key, "root")
        self.root.roles["root"].threshold = 2
        for role in ROLES[1:]:
            self.root.add_key(self.signers[role].public_key, role)
        for signer in self.directors:
            self.root.keys[signer.public_key.keyid] = signer.public_key
        keyids = [signer.public_key.keyid for signer in self.directors]
        self.root.unrecognized_fields[DIRECTOR_FIELD] = {
            "keyids": keyids,
            "threshold": self.director_threshold,
        }

    def publish_root(self, signers: Iterable[CryptoSigner] | None = None) -> bytes:
        """Sign the root as it is and make it the newest."""
        name = f"{self.root.version}.root.json"
        self.files[name] = signed_by(self.root, self.root_signers if signers is None else signers)
        return self.files[name]

    def rotate(self, signers: Iterable[CryptoSigner] | None = None) -> bytes:
        """Publish the next root with the keys that are in the fields now, signed by the root keys of before and now."""
        by = {signer.public_key.keyid: signer for signer in (*self.root_signers, *(signers or ()))}
        self.root = copy.deepcopy(self.root)
        self.root.version += 1
        self.root.expires = self._expiry("root")
        self.name_keys()
        return self.publish_root(by.values())

    @property
    def first_root(self) -> bytes:
        return self.files["1.root.json"]

    # bundles ----

    def add(self, reference: BundleReference) -> None:
        """Make a bundle a target of its model's role, and publish."""
        if self.offer(reference):
            self.publish()

    def offer(self, reference: BundleReference, model: str | None = None) -> bool:
        """Make a bundle a target, not yet published; `model`: in another model's role. False: it is one already."""
        role = self._delegated(model or reference.name)
        path = f"{reference.name}/{reference.version}/manifest.json"
        target = TargetFile(reference.manifest_size_bytes, {"sha256": reference.manifest_sha256}, path)
        if role.targets.get(path) == target:
            return False
        role.targets[path] = target
        return True

    def _delegated(self, model: str) -> Targets:
        name = f"model-{model}"
        if name not in self.models:
            self.models[name] = Targets()
            self._delegate(model)
        return self.models[name]

    def _delegate(self, model: str) -> None:
        name = f"model-{model}"
        delegations = self.targets.delegations or Delegations({}, {})
        assert delegations.roles is not None
        delegations.roles[name] = DelegatedRole(name, [], 1, True, paths=[f"{model}/*/manifest.json"])
        self.targets.delegations = delegations
        self.targets.add_key(self.signers["models"].public_key, name)

    def redelegate(self) -> None:
        """Give every model's role the key that is in the fields now."""
        names, self.targets.delegations = list(self.models), None
        for name in names:
            self._delegate(name.removeprefix("model-"))

    # publishing ----

    def publish(self, lifetime_s: float | None = None) -> None:
        """Sign everything below the root anew and make it current."""
        self.lifetime_s = lifetime_s if lifetime_s is not None else self.lifetime_s
        for name, role in self.models.items():
            self._version("models", name, role)
        self._version("targets", "targets", self.targets)
        self.publish_snapshot()

    def publish_snapshot(self) -> None:
        self.snapshot.version += 1
        self.snapshot.expires = self._expiry("snapshot")
        self.files[f"{self.snapshot.version}.snapshot.json"] = signed_by(self.snapshot, [self.signers["snapshot"]])
        self.publish_timestamp()

    def publish_timestamp(self) -> None:
        self.timestamp.version += 1
        self.timestamp.expires = self._expiry("timestamp")
        self.timestamp.snapshot_meta = self.meta_file("snapshot", self.snapshot.version)
        self.files["timestamp.json"] = signed_by(self.timestamp, [self.signers["timestamp"]])

    def _version(self, key: str, name: str, role: Targets) -> None:
        role.version += 1
        role.expires = self._expiry(name)
        self.files[f"{role.version}.{name}.json"] = signed_by(role, [self.signers[key]])
        self.snapshot.meta[f"{name}.json"] = self.meta_file(name, role.version)

    def meta_file(self, name: str, version: int) -> MetaFile:
        """Return how the metadata above names a version of this role that was signed before."""
        return MetaFile.from_data(version, self.files[f"{version}.{name}.json"], ["sha256"])

    # messages ----

    def catalogue(self) -> dict[str, MetadataFile]:
        """Return the way to everything that is current."""
        names = [f"{version}.root.json" for version in range(1, self.root.version + 1)]
        names += ["timestamp.json", f"{self.timestamp.snapshot_meta.version}.snapshot.json"]
        names += [f"{meta.version}.{name}" for name, meta in self.snapshot.meta.items()]
        return {name: catalogued(self.files[name]) for name in names if name in self.files}

    def sign(self, document: DesiredState | Command, by: Iterable[CryptoSigner] | None = None) -> Envelope:
        return seal(PAYLOAD_TYPES[type(document)], document.to_bytes(), signing(self.directors if by is None else by))

    def message(
        self,
        document: DesiredState | Command,
        fleet: str,
        *,
        signed_at: float | None = None,
        expires_at: float | None = None,
        catalogue: dict[str, MetadataFile] | None = None,
        by: Iterable[CryptoSigner] | None = None,
    ) -> bytes:
        """Return what the director sends: the document bound to the fleet and the time, and the catalogue."""
        at = datetime.now(timezone.utc).timestamp() if signed_at is None else signed_at
        until = expires_at if expires_at is not None else document.expires_at or at + 90 * DAY_S
        bound = document.model_copy(update={"fleet": fleet, "signed_at": at, "expires_at": until})
        named = self.catalogue() if catalogue is None else catalogue
        return SignedMessage(envelope=self.sign(bound, by), catalogue=named).to_bytes()


def catalogued(data: bytes) -> MetadataFile:
    return MetadataFile(sha256=sha256_of(data), size_bytes=len(data))


def signing(signers: Iterable[CryptoSigner]) -> list[Any]:
    return [
        (each.public_key.keyid, lambda data, each=each: bytes.fromhex(each.sign(data).signature)) for each in signers
    ]


def signed_by(signed: Root | Targets | Snapshot | Timestamp, signers: Iterable[CryptoSigner]) -> bytes:
    metadata: Metadata[Any] = Metadata(copy.deepcopy(signed))
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))
