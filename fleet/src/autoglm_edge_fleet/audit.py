"""The audit log: who did what, in the order it was done. Rows are added, never changed.

Each row holds the digest of the one before it, so that a row that was changed or taken out behind the program's back is
noticed. Cutting off the end is not: for that, keep a copy of the newest digest elsewhere.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from autoglm_edge_fleet.database import Database, Row
from autoglm_edge_protocol.digests import sha256_of

Detail = str | int | float | bool | None
_NO_ROW = "0" * 64


@dataclass(frozen=True)
class AuditEntry:
    """One thing that was done."""

    number: int
    at: float
    """Unix time in seconds."""
    actor: str
    """USER@HOST of the process that did it."""
    action: str
    subject: str
    details: Mapping[str, Detail]
    digest: str
    """SHA-256 over this row and the digest of the one before."""


def note(connection: sqlite3.Connection, action: str, subject: str, **details: Detail) -> None:
    """Add a row, within the transaction that does the thing itself."""
    last = connection.execute("SELECT digest FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    values = (time.time(), actor(), action, subject, json.dumps(details, sort_keys=True, ensure_ascii=False))
    connection.execute(
        "INSERT INTO audit (at, actor, action, subject, details, digest) VALUES (?, ?, ?, ?, ?, ?)",
        (*values, _digest(last[0] if last else _NO_ROW, *values)),
    )


def note_alone(database: Database, action: str, subject: str, **details: Detail) -> None:
    """Add a row about something that is not done in the database. Raises StorageError."""
    with database.transaction() as connection:
        note(connection, action, subject, **details)


def list_audit(database: Database, newest: int | None = None) -> tuple[AuditEntry, ...]:
    """Return the log, oldest first; of the newest so many rows when that is given. Raises StorageError."""
    rows = database.read("SELECT * FROM audit ORDER BY number DESC LIMIT ?", (-1 if newest is None else newest,))
    return tuple(_from_row(row) for row in reversed(rows))


def first_broken(database: Database) -> int | None:
    """Return the number of the first row that does not continue the one before it. Raises StorageError."""
    previous, expected = _NO_ROW, 1
    for row in database.read("SELECT * FROM audit ORDER BY number"):
        values = (row["at"], row["actor"], row["action"], row["subject"], row["details"])
        if row["number"] != expected or row["digest"] != _digest(previous, *values):
            return expected
        previous, expected = row["digest"], expected + 1
    return None


def actor() -> str:
    """Return who runs this process, on which machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name: in containers, or as a service of Windows
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def _digest(previous: str, *values: object) -> str:
    return sha256_of(json.dumps([previous, *values], ensure_ascii=False).encode())


def _from_row(row: Row) -> AuditEntry:
    details = json.loads(row["details"])
    return AuditEntry(row["number"], row["at"], row["actor"], row["action"], row["subject"], details, row["digest"])
