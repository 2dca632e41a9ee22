"""Devices: their rows in the database, and what presence messages and reports change in them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from autoglm_edge_fleet.database import Database, Row
from autoglm_edge_fleet.errors import RefusedReport
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.registry import Known, after_presence, after_report
from autoglm_edge_protocol.deployment import DeploymentReport, Installed, Presence, Reason, ReportedState
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import EVERYBODY


@dataclass(frozen=True)
class Device:
    """A device as its owner knows it."""

    name: str
    online: bool
    last_seen_at: float | None
    """Unix time by our clock of its last live message; None: none came yet."""
    report: ReportedState | None
    generation: int
    """Of the newest desired state; 0: none was issued."""
    reported_generation: int
    sent_bytes: int
    """Bulk data sent to it, over all time."""
    sent_blocks: int

    @property
    def current(self) -> Installed | None:
        """What it runs."""
        return self.report.current if self.report else None


@dataclass(frozen=True)
class Traffic:
    """Bulk data sent to a device."""

    size_bytes: int = 0
    blocks: int = 0


@dataclass(frozen=True)
class Change:
    """What a report changed."""

    before: DeploymentReport | None
    after: DeploymentReport | None
    generation: int
    """The newest that was issued to the device."""
    refusal: Reason | None = None
    """Why the device has turned away what it was sent, when that is news."""


def list_devices(database: Database) -> tuple[Device, ...]:
    """Return all devices by name. Raises StorageError."""
    return tuple(_from_row(row) for row in database.read("SELECT * FROM devices ORDER BY name"))


def device_names(database: Database) -> tuple[str, ...]:
    """Return the names of all devices. Raises StorageError."""
    return tuple(row[0] for row in database.read("SELECT name FROM devices ORDER BY name"))


def admit(database: Database, device: str) -> None:
    """Make a row for a device that was not known. Raises RefusedReport when there are too many, StorageError."""
    if database.read("SELECT 1 FROM devices WHERE name = ?", (device,)):
        return
    with database.transaction() as connection:
        insert(connection, device)


def insert(connection: sqlite3.Connection, device: str) -> None:
    """Make a row for a device unless it has one. Raises RefusedReport when there are too many."""
    if connection.execute("SELECT 1 FROM devices WHERE name = ?", (device,)).fetchone():
        return
    if connection.execute("SELECT COUNT(*) FROM devices").fetchone()[0] >= FLEET_LIMITS.devices:
        raise RefusedReport(f"more than {FLEET_LIMITS.devices} devices")
    connection.execute("INSERT INTO devices (name) VALUES (?)", (device,))


def take_presence(database: Database, presence: Presence, live: bool) -> bool | None:
    """Take in a presence message; returns whether the device is online if that has changed, else None.

    `live`: it was sent just now, not kept by the broker. Raises RefusedReport, StorageError.
    """
    admit(database, presence.device)
    before = _known(database, presence.device)
    after = after_presence(before, presence)
    if after is None:
        return None
    with database.transaction() as connection:
        connection.execute(
            "UPDATE devices SET presence_session = ?, online = ?, last_seen_at = coalesce(?, last_seen_at)"
            " WHERE name = ?",
            (after.presence_session, after.online, time.time() if live and after.online else None, presence.device),
        )
    return after.online if after.online != before.online else None


def take_report(database: Database, report: ReportedState, live: bool) -> Change | None:
    """Take in a report; returns what it changed, None when it is stale. Raises RefusedReport, StorageError."""
    admit(database, report.device)
    if after_report(_known(database, report.device), report) is None:
        return None
    row = database.read("SELECT * FROM devices WHERE name = ?", (report.device,))[0]
    before = _from_row(row).report
    now = time.time()
    with database.transaction() as connection:
        _store_report(connection, report, now if live else None)
        if report.deployment:
            _store_progress(connection, report.device, report.deployment, now)
    refused, before_refused = _refusal(report), _refusal(before)
    news = refused if refused != before_refused else None
    return Change(before.deployment if before else None, report.deployment, row["generation"], news)


def _refusal(report: ReportedState | None) -> Reason | None:
    return report.trust.refusal if report and report.trust else None


def _store_report(connection: sqlite3.Connection, report: ReportedState, seen_at: float | None) -> None:
    generation = report.deployment.generation if report.deployment else 0
    connection.execute(
        "UPDATE devices SET report_session = ?, report_sequence = ?, report = ?, reported_generation = ?,"
        " last_seen_at = coalesce(?, last_seen_at) WHERE name = ?",
        (report.session, report.sequence, report.to_bytes().decode(), generation, seen_at, report.device),
    )


def _store_progress(connection: sqlite3.Connection, device: str, progress: DeploymentReport, now: float) -> None:
    reason = (progress.reason.code, progress.reason.message) if progress.reason else (None, None)
    moved = (progress.fetched_bytes, progress.total_bytes, progress.present_bytes)
    connection.execute(
        "UPDATE deployments SET phase = ?, fetched_bytes = ?, total_bytes = ?, present_bytes = ?, reason_code = ?,"
        " reason_message = ?, updated_at = ? WHERE device = ? AND generation = ? AND phase != 'superseded'",
        (progress.phase, *moved, *reason, now, device, progress.generation),
    )


def saw(database: Database, device: str) -> None:
    """Note that the device has just sent something. Raises RefusedReport, StorageError."""
    admit(database, device)
    with database.transaction() as connection:
        connection.execute("UPDATE devices SET last_seen_at = ? WHERE name = ?", (time.time(), device))


def count_traffic(database: Database, traffic: Mapping[str, Traffic]) -> None:
    """Add to the counters of bulk data; what all followers of a file got is under `EVERYBODY`. Raises StorageError."""
    with database.transaction() as connection:
        connection.executemany(
            "UPDATE devices SET sent_bytes = sent_bytes + ?, sent_blocks = sent_blocks + ? WHERE name = ?",
            [(sent.size_bytes, sent.blocks, device) for device, sent in traffic.items()],
        )
        shared = traffic.get(EVERYBODY, Traffic())
        connection.execute(
            "UPDATE shared_traffic SET sent_bytes = sent_bytes + ?, sent_blocks = sent_blocks + ?",
            (shared.size_bytes, shared.blocks),
        )


def shared_traffic(database: Database) -> Traffic:
    """Return what was sent to all followers of files at once, over all time. Raises StorageError."""
    row = database.read("SELECT sent_bytes, sent_blocks FROM shared_traffic")[0]
    return Traffic(row[0], row[1])


def _known(database: Database, device: str) -> Known:
    row = database.read(
        "SELECT presence_session, online, report_session, report_sequence FROM devices WHERE name = ?", (device,)
    )[0]
    return Known(row[0], bool(row[1]), row[2], row[3])


def _from_row(row: Row) -> Device:
    # Twice the limit of the wire: the stored form may be longer than the sender's, with its defaults written out.
    report = parse(ReportedState, row["report"].encode(), 2 * LIMITS.control_bytes) if row["report"] else None
    return Device(
        name=row["name"],
        online=bool(row["online"]),
        last_seen_at=row["last_seen_at"],
        report=report,
        generation=row["generation"],
        reported_generation=row["reported_generation"],
        sent_bytes=row["sent_bytes"],
        sent_blocks=row["sent_blocks"],
    )
