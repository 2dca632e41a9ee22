"""A repository with keys, without a fleet around it: quick to make, with a clock that the test turns."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.trust.custody import Custody, Foundation, sign_root
from autoglm_edge_fleet.trust.verify import Verification
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.digests import sha256_of


class Repository:
    """Keys in `keys/`, root keys in `root-keys/`, metadata and targets in `repository/`. Nothing is encrypted."""

    def __init__(self, directory: Path, threshold: int = 2, count: int = 3) -> None:
        self.directory = directory
        self.folder = directory / "repository"
        self.metadata = self.folder / "metadata"
        self.now = datetime.now(timezone.utc)
        self.ring = KeyRing(directory / "keys", Passphrases())
        self.custody = Custody(self.folder, self.ring)
        self.root_keys = self.custody.found(Foundation(directory / "root-keys", count, threshold, plain=True), self.now)
        self.bundles: list[BundleReference] = []

    def reopened(self) -> Custody:
        return Custody(self.folder, KeyRing(self.directory / "keys", Passphrases()))

    def publish(self, name: str, version: str, content: bytes = b"") -> BundleReference:
        data = content or f"manifest of {name}@{version}".encode()
        digest = sha256_of(data)
        reference = BundleReference(name=name, version=version, manifest_sha256=digest, manifest_size_bytes=len(data))
        target = self.folder / "targets" / name / version / f"{digest}.manifest.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.custody.sign_bundles([reference], self.now)
        self.bundles.append(reference)
        return reference

    def sign(self, *root_keys: Path) -> None:
        pending = self.custody.pending()
        assert pending is not None
        sign_root(pending, [str(key) for key in root_keys], self.ring)

    def passed(self, days: float) -> None:
        self.now += timedelta(days=days)

    def verify(self) -> Verification:
        return self.custody.verify(self.bundles, self.now)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.metadata.iterdir()}
