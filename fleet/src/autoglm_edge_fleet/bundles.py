"""Published bundles: their rows in the database, and the publication that makes them.

Objects first, then one transaction with the row: a bundle that is listed is complete, whatever died in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_fleet.audit import note
from autoglm_edge_fleet.database import Database, Row
from autoglm_edge_fleet.errors import BundleConflict, UnknownBundle
from autoglm_edge_fleet.repository import Repository
from autoglm_edge_protocol.bundle import Progress, verify
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import DigestMismatch
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import MANIFEST_PATH, FileEntry, Manifest
from autoglm_edge_protocol.names import BundleId


@dataclass(frozen=True)
class PublishedBundle:
    """A bundle of the repository."""

    row_id: int
    reference: BundleReference
    size_bytes: int
    """All files together, the manifest included."""
    description: str
    variants: tuple[str, ...]
    """Ids, best quality first."""
    published_at: float

    @property
    def id(self) -> BundleId:
        """The bundle's `name@version`."""
        return self.reference.id


@dataclass(frozen=True)
class Publication:
    """What a publication did."""

    bundle: PublishedBundle
    is_new: bool
    """False: this very bundle was published before."""
    new_bytes: int
    """Bytes of the files that the repository did not have yet."""


def list_bundles(database: Database) -> tuple[PublishedBundle, ...]:
    """Return all bundles, by name and time of publication. Raises StorageError."""
    return tuple(_from_row(row) for row in database.read("SELECT * FROM bundles ORDER BY name, published_at, id"))


def find_bundle(database: Database, bundle: BundleId) -> PublishedBundle | None:
    """Return the bundle. Raises StorageError."""
    rows = database.read("SELECT * FROM bundles WHERE name = ? AND version = ?", (bundle.name, bundle.version))
    return _from_row(rows[0]) if rows else None


def require_bundle(database: Database, bundle: BundleId) -> PublishedBundle:
    """Return the bundle. Raises UnknownBundle, StorageError."""
    found = find_bundle(database, bundle)
    if found is None:
        raise UnknownBundle(str(bundle), (str(each.id) for each in list_bundles(database)))
    return found


def object_size(database: Database, sha256: str) -> int | None:
    """Return the size of an object that belongs to a published bundle, else None. Raises StorageError."""
    rows = database.read("SELECT size_bytes FROM bundle_objects WHERE sha256 = ? LIMIT 1", (sha256,))
    return int(rows[0][0]) if rows else None


def list_objects(database: Database) -> tuple[tuple[str, int], ...]:
    """Return digest and size of every object of a published bundle. Raises StorageError."""
    return tuple((row[0], row[1]) for row in database.read("SELECT DISTINCT sha256, size_bytes FROM bundle_objects"))


def publish(
    database: Database,
    repository: Repository,
    directory: Path,
    progress: Progress | None,
    sign: Callable[[BundleReference], object] | None = None,
) -> Publication:
    """Verify a bundle directory wholly and take it in.

    `sign` is called when all files are stored and before the bundle is listed; what it raises is raised, and the bundle
    is not published. `progress` is called with bytes done: each byte of the bundle counts once for its verification,
    once for its copy.

    Raises:
        BundleConflict: the name and version are taken by other content.
        MalformedBundle, DigestMismatch, MalformedDocument, UnsupportedSchema: the bundle is not sound.
        StorageError, OSError: it cannot be stored.
    """
    verified = verify(directory, progress)
    data = (directory / MANIFEST_PATH).read_bytes()
    manifest = parse(Manifest, data, LIMITS.manifest_bytes)
    if manifest != verified:
        raise DigestMismatch(MANIFEST_PATH, "the file has changed while it was published")
    own = FileEntry(path=MANIFEST_PATH, size_bytes=len(data), sha256=sha256_of(data))
    existing = find_bundle(database, manifest.id)
    if existing is not None:
        _check_same(existing, own.sha256)
    files = (*manifest.files, own)
    new_bytes = sum(
        entry.size_bytes
        for entry in files
        if repository.add(directory / entry.path, entry.sha256, entry.size_bytes, progress)
    )
    if sign:
        sign(
            BundleReference(
                name=manifest.name,
                version=manifest.version,
                manifest_sha256=own.sha256,
                manifest_size_bytes=own.size_bytes,
            )
        )
    bundle = existing or _insert(database, manifest, own, files)
    return Publication(bundle, existing is None, new_bytes)


def _check_same(existing: PublishedBundle, manifest_sha256: str) -> None:
    if existing.reference.manifest_sha256 != manifest_sha256:
        raise BundleConflict(
            f"{existing.id} is published with other content, and a published bundle never changes: raise its version"
        )


def _insert(database: Database, manifest: Manifest, own: FileEntry, files: tuple[FileEntry, ...]) -> PublishedBundle:
    objects = {entry.sha256: entry.size_bytes for entry in files}
    variants = json.dumps([variant.id for variant in manifest.variants])
    values = (manifest.name, manifest.version, own.sha256, own.size_bytes, sum(e.size_bytes for e in files))
    with database.transaction() as connection:
        row_id = connection.execute(
            "INSERT INTO bundles (name, version, manifest_sha256, manifest_size_bytes, size_bytes, description,"
            " variants, published_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, manifest.description, variants, time.time()),
        ).lastrowid
        connection.executemany(
            "INSERT INTO bundle_objects VALUES (?, ?, ?)", [(row_id, digest, size) for digest, size in objects.items()]
        )
        note(connection, "publish", str(manifest.id), manifest_sha256=own.sha256)
    return require_bundle(database, manifest.id)


def _from_row(row: Row) -> PublishedBundle:
    reference = BundleReference(
        name=row["name"],
        version=row["version"],
        manifest_sha256=row["manifest_sha256"],
        manifest_size_bytes=row["manifest_size_bytes"],
    )
    variants = tuple(json.loads(row["variants"]))
    return PublishedBundle(row["id"], reference, row["size_bytes"], row["description"], variants, row["published_at"])
