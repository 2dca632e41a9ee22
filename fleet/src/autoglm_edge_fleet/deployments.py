"""Deployments: one device told to move to one bundle, under a generation that only grows."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoglm_edge_fleet.audit import Detail, note
from autoglm_edge_fleet.bundles import PublishedBundle
from autoglm_edge_fleet.database import Database, Row
from autoglm_edge_fleet.errors import UnknownDevice, UnknownVariant
from autoglm_edge_fleet.registry import CONFIRMED, ENDED, QUEUED, SUPERSEDED, Standing, next_generation
from autoglm_edge_protocol.deployment import BundleReference, DesiredState, Reason
from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.names import EVERYBODY, LEVEL_PATTERN, BundleId
from autoglm_edge_protocol.probation import ProbationTerms

log = logging.getLogger(__name__)

_BEFORE_FETCHED = (QUEUED, "resolving", "fetching")
"""Phases in which a device may still ask for files."""
_SELECT = """
SELECT deployments.*, bundles.name, bundles.version FROM deployments JOIN bundles ON bundles.id = bundle_id
"""


@dataclass(frozen=True)
class Deployment:
    """One device moving to one bundle."""

    device: str
    generation: int
    bundle: BundleId
    variant: str | None
    """None: the device chooses."""
    issued_at: float
    phase: str
    """`queued` until the device speaks of it, then what it says; `confirmed`, `failed` or `superseded` in the end."""
    fetched_bytes: int
    total_bytes: int
    present_bytes: int
    reason: Reason | None
    updated_at: float

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether the device has confirmed it."""
        return self.phase == CONFIRMED

    @property
    def fraction(self) -> float:
        """How much of what the device needs is there, 0 to 1."""
        if self.phase == CONFIRMED:
            return 1.0
        there = self.fetched_bytes + self.present_bytes
        return min(1.0, max(0.0, there / self.total_bytes)) if self.total_bytes > 0 else 0.0


def deploy(
    database: Database,
    bundle: PublishedBundle,
    devices: Sequence[str],
    variant: str | None,
    create: bool,
    downgrade_reason: str | None = None,
    probation: ProbationTerms | None = None,
) -> tuple[Deployment, ...]:
    """Issue a new desired state to each device, all in one transaction.

    `downgrade_reason` lets devices go below the highest version that they have confirmed, and says why; `probation` is
    what the bundle must keep to there, None: each device's own terms.

    Raises:
        UnknownDevice: one was never seen, and `create` is not set.
        MalformedDocument: one to be created cannot have such a name.
        UnknownVariant: the bundle has no such variant.
        StorageError: the database cannot be written.
    """
    if variant is not None and variant not in bundle.variants:
        raise UnknownVariant(f"{bundle.id} has no variant {variant!r}; it has: {', '.join(bundle.variants)}")
    now = time.time()
    terms = probation.model_dump_json() if probation else None
    issued = []
    with database.transaction() as connection:
        for device in dict.fromkeys(devices):
            generation = _next_generation(connection, device, create)
            connection.execute(
                "UPDATE deployments SET phase = ?, updated_at = ? WHERE device = ?"
                " AND phase NOT IN ('confirmed', 'failed', 'superseded')",
                (SUPERSEDED, now, device),
            )
            connection.execute(
                "INSERT INTO deployments (device, generation, bundle_id, variant, issued_at, updated_at,"
                " downgrade_reason, probation) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (device, generation, bundle.row_id, variant, now, now, downgrade_reason, terms),
            )
            _note(connection, device, generation, bundle, variant, downgrade_reason)
            connection.execute("UPDATE devices SET generation = ? WHERE name = ?", (generation, device))
            issued.append((device, generation))
    return find_deployments(database, issued)


def _note(
    connection: sqlite3.Connection,
    device: str,
    generation: int,
    bundle: PublishedBundle,
    variant: str | None,
    downgrade_reason: str | None,
) -> None:
    what: dict[str, Detail] = {"bundle": str(bundle.id), "generation": generation, "variant": variant}
    if downgrade_reason is None:
        note(connection, "deploy", device, **what)
    else:
        note(connection, "deploy-allowing-downgrade", device, **what, reason=downgrade_reason)


def _next_generation(connection: sqlite3.Connection, device: str, create: bool) -> int:
    if create:
        _check_name(device)
        connection.execute("INSERT OR IGNORE INTO devices (name) VALUES (?)", (device,))
    query = "SELECT generation, reported_generation FROM devices WHERE name = ?"
    row = connection.execute(query, (device,)).fetchone()
    if row is None:
        raise UnknownDevice(device, (r[0] for r in connection.execute("SELECT name FROM devices ORDER BY name")))
    return next_generation(row[0], row[1])


def _check_name(device: str) -> None:
    # A row whose name no document can carry would stop the daemon, for every device.
    if device == EVERYBODY or not re.fullmatch(LEVEL_PATTERN, device):
        raise MalformedDocument("device name", f"{device!r}; use 1 to 64 of A-Z a-z 0-9 _ -")


def find_deployments(database: Database, keys: Iterable[tuple[str, int]]) -> tuple[Deployment, ...]:
    """Return the deployments with these (device, generation). Raises StorageError."""
    query = _SELECT + "WHERE device = ? AND generation = ?"
    return tuple(_from_row(row) for key in keys for row in database.read(query, key))


def devices_that_lack(database: Database, sha256: str) -> frozenset[str]:
    """Return the devices that are online and on their way to a bundle with this object. Raises StorageError."""
    rows = database.read(
        "SELECT devices.name, phase FROM bundle_objects JOIN deployments USING (bundle_id) JOIN devices"
        " ON devices.name = deployments.device AND devices.generation = deployments.generation"
        " WHERE sha256 = ? AND online",
        (sha256,),
    )
    return frozenset(name for name, phase in rows if phase in _BEFORE_FETCHED)


def newest_deployments(database: Database) -> tuple[Deployment, ...]:
    """Return the newest deployment of every device that has one, by device. Raises StorageError."""
    query = _SELECT + "JOIN devices ON devices.name = device AND devices.generation = deployments.generation"
    return tuple(_from_row(row) for row in database.read(query + " ORDER BY device"))


def open_standings(database: Database, fleet: str, epoch: str) -> tuple[Standing, ...]:
    """Return the desired states that a broker or a device may not have yet, or not as of this epoch.

    Raises StorageError.
    """
    rows = database.read(
        "SELECT devices.name AS device, devices.generation, published_generation, reported_generation, variant,"
        " issued_at, downgrade_reason, probation, published_epoch, bundles.name, version, manifest_sha256,"
        " manifest_size_bytes"
        " FROM devices JOIN deployments ON device = devices.name AND deployments.generation = devices.generation"
        " JOIN bundles ON bundles.id = bundle_id"
        " WHERE published_generation < devices.generation OR reported_generation != devices.generation"
        " OR published_epoch != ? ORDER BY issued_at",
        (epoch,),
    )
    standings = []
    for row in rows:
        try:
            standings.append(_standing(row, fleet))
        except ValueError as error:
            # One row that no document can carry must not keep all other devices from hearing what they should run.
            log.error("the order for %r cannot be sent: %s", row["device"], str(error).splitlines()[0])  # noqa: TRY400
    return tuple(standings)


def mark_published(database: Database, generations: dict[str, int], epoch: str) -> None:
    """Note what a broker has acknowledged: device -> generation, as of an epoch. Raises StorageError."""
    with database.transaction() as connection:
        connection.executemany(
            "UPDATE devices SET published_generation = max(published_generation, ?), published_epoch = ?"
            " WHERE name = ?",
            [(generation, epoch, device) for device, generation in generations.items()],
        )


def _standing(row: Row, fleet: str) -> Standing:
    reference = BundleReference(
        name=row["name"],
        version=row["version"],
        manifest_sha256=row["manifest_sha256"],
        manifest_size_bytes=row["manifest_size_bytes"],
    )
    desired = DesiredState(
        fleet=fleet,
        device=row["device"],
        generation=row["generation"],
        bundle=reference,
        variant=row["variant"],
        issued_at=row["issued_at"],
        allow_downgrade=row["downgrade_reason"] is not None,
        downgrade_reason=row["downgrade_reason"],
        probation=ProbationTerms.model_validate_json(row["probation"]) if row["probation"] else None,
    )
    return Standing(desired, row["published_generation"], row["reported_generation"], row["published_epoch"])


def _from_row(row: Row) -> Deployment:
    reason = Reason(code=row["reason_code"], message=row["reason_message"]) if row["reason_code"] else None
    return Deployment(
        device=row["device"],
        generation=row["generation"],
        bundle=BundleId(name=row["name"], version=row["version"]),
        variant=row["variant"],
        issued_at=row["issued_at"],
        phase=row["phase"],
        fetched_bytes=row["fetched_bytes"],
        total_bytes=row["total_bytes"],
        present_bytes=row["present_bytes"],
        reason=reason,
        updated_at=row["updated_at"],
    )
