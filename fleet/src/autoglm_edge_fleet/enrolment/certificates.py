"""Certificates in the database: which device has which, until when, and which are revoked."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from autoglm_edge_fleet.audit import note
from autoglm_edge_fleet.database import Database, Row
from autoglm_edge_fleet.enrolment.authority import Certificate, Revocation
from autoglm_edge_fleet.errors import UnknownDevice


@dataclass(frozen=True)
class DeviceCertificate:
    """A certificate of a device. Times are Unix times in seconds."""

    serial: str
    device: str
    claim_id: str | None
    key_sha256: str
    board_id: str | None
    """The board that it was given to, where that can be told."""
    pem: str
    not_before: float
    not_after: float
    revoked_at: float | None
    revoked_reason: str | None


def store_certificate(
    connection: sqlite3.Connection, device: str, certificate: Certificate, claim_id: str | None, board_id: str | None
) -> None:
    """Add a certificate that was issued."""
    connection.execute(
        "INSERT INTO certificates (serial, device, claim_id, key_sha256, board_id, pem, not_before, not_after)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            certificate.serial,
            device,
            claim_id,
            certificate.key_sha256,
            board_id,
            certificate.pem,
            certificate.not_before,
            certificate.not_after,
        ),
    )


def newest_certificate(connection: sqlite3.Connection, device: str, key_sha256: str) -> DeviceCertificate | None:
    """Return the certificate of a device's key that lasts longest and is not revoked."""
    row = connection.execute(
        "SELECT * FROM certificates WHERE device = ? AND key_sha256 = ? AND revoked_at IS NULL"
        " ORDER BY not_after DESC LIMIT 1",
        (device, key_sha256),
    ).fetchone()
    return _from_row(row) if row else None


def newest_certificates(database: Database) -> dict[str, DeviceCertificate]:
    """Return of each device the certificate that was issued last. Raises StorageError."""
    rows = database.read("SELECT * FROM certificates ORDER BY not_before")
    return {row["device"]: _from_row(row) for row in rows}


def revoke_certificates(connection: sqlite3.Connection, device: str, reason: str) -> int:
    """Revoke all certificates of a device; returns how many were valid."""
    return connection.execute(
        "UPDATE certificates SET revoked_at = ?, revoked_reason = ? WHERE device = ? AND revoked_at IS NULL",
        (time.time(), reason, device),
    ).rowcount


def revoke_device(database: Database, device: str, reason: str) -> int:
    """Revoke a device: it gets no certificate any more but by a new claim; 0 where it was revoked before.

    Raises UnknownDevice, StorageError.
    """
    with database.transaction() as connection:
        count = revoke_certificates(connection, device, reason)
        if count:
            note(connection, "revoke device", device, certificates=count, reason=reason)
            return count
        rows = connection.execute("SELECT device, COUNT(*) = COUNT(revoked_at) FROM certificates GROUP BY device")
        revoked = {name: bool(whole) for name, whole in rows}
    if device not in revoked:
        raise UnknownDevice(device, [name for name, whole in revoked.items() if not whole])
    return 0


def revocations(database: Database) -> tuple[Revocation, ...]:
    """Return what is revoked. Raises StorageError."""
    rows = database.read("SELECT serial, revoked_at FROM certificates WHERE revoked_at IS NOT NULL ORDER BY revoked_at")
    return tuple(Revocation(row[0], row[1]) for row in rows)


def valid_certificates(database: Database) -> tuple[DeviceCertificate, ...]:
    """Return the certificates that are neither revoked nor over. Raises StorageError."""
    rows = database.read(
        "SELECT * FROM certificates WHERE revoked_at IS NULL AND not_after > ? ORDER BY device, not_before",
        (time.time(),),
    )
    return tuple(_from_row(row) for row in rows)


def outcast_devices(database: Database) -> tuple[str, ...]:
    """Return the names of devices all of whose certificates are revoked. Raises StorageError."""
    rows = database.read("SELECT device FROM certificates GROUP BY device HAVING COUNT(*) = COUNT(revoked_at)")
    return tuple(row[0] for row in rows)


def _from_row(row: Row) -> DeviceCertificate:
    return DeviceCertificate(**{name: row[name] for name in DeviceCertificate.__dataclass_fields__})
