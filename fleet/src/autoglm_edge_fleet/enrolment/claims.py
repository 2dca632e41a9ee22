"""Claims in the database: made, listed, revoked, approved, and what boards have done with them."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoglm_edge_fleet.audit import note
from autoglm_edge_fleet.database import Database, Row, Value
from autoglm_edge_fleet.enrolment.decisions import Known
from autoglm_edge_fleet.errors import NotWaiting, UnknownClaim
from autoglm_edge_fleet.printable import printable
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.enrolment import CertificateRequest

Read = Callable[[str, Sequence[Value]], list[Row]]
"""Returns the rows of a query, of a database or within a transaction."""


@dataclass(frozen=True)
class NewClaim:
    """A claim as it was made, with its secret."""

    claim_id: str
    secret: str
    created_at: float
    expires_at: float


@dataclass(frozen=True)
class ClaimTerms:
    """What claims are made for."""

    expires_s: float
    tags: Mapping[str, str]
    needs_approval: bool = False
    device: str | None = None
    """The device whose board is replaced."""


@dataclass(frozen=True)
class ClaimRow:
    """A claim as its owner knows it. Times are Unix times in seconds."""

    claim_id: str
    created_at: float
    expires_at: float
    tags: Mapping[str, str]
    needs_approval: bool
    device: str | None
    """The name that the board got or will get, or the device that is replaced."""
    state: str
    """`open`, `expired`, `revoked`, `waiting` for approval, `approved`, or `used`."""
    board: str | None
    """What board has asked."""
    requested_at: float | None
    contested_at: float | None
    """When another board asked with the same claim."""
    contested_board: str | None


@dataclass(frozen=True)
class Asked:
    """What is kept of who asked with a claim."""

    request: CertificateRequest
    payload: str
    key_sha256: str


@dataclass(frozen=True)
class Record:
    """A claim with its secret and what is known of it."""

    claim_id: str
    secret: str
    tags: Mapping[str, str]
    device: str | None
    known: Known
    asked: Asked | None


def make_claims(database: Database, count: int, terms: ClaimTerms) -> tuple[NewClaim, ...]:
    """Make claims. Raises StorageError."""
    now = time.time()
    made = tuple(
        NewClaim(secrets.token_hex(8), secrets.token_hex(32), now, now + terms.expires_s) for _ in range(count)
    )
    tags = json.dumps(dict(terms.tags), sort_keys=True)
    with database.transaction() as connection:
        connection.executemany(
            "INSERT INTO claims (claim_id, secret, created_at, expires_at, tags, needs_approval, device)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(c.claim_id, c.secret, now, c.expires_at, tags, terms.needs_approval, terms.device) for c in made],
        )
        subject = made[0].claim_id if count == 1 else f"{count} claims"
        first = {"first": made[0].claim_id, "last": made[-1].claim_id} if count > 1 else {}
        note(connection, "make claim", subject, tags=tags, replaces=terms.device, expires_s=terms.expires_s, **first)
    return made


def list_claims(database: Database) -> tuple[ClaimRow, ...]:
    """Return all claims, the oldest first. Raises StorageError."""
    now = time.time()
    return tuple(_row(row, now) for row in database.read("SELECT * FROM claims ORDER BY created_at, claim_id"))


def revoke_claim(database: Database, claim_id: str) -> ClaimRow:
    """Make a claim worthless; a device that it has made already stays. Raises UnknownClaim, StorageError."""
    with database.transaction() as connection:
        row = _one(connection, claim_id)
        if row["revoked_at"] is None and row["answered_at"] is None:
            connection.execute("UPDATE claims SET revoked_at = ? WHERE claim_id = ?", (time.time(), claim_id))
            note(connection, "revoke claim", claim_id)
        return _row(_one(connection, claim_id), time.time())


def approve(database: Database, name: str) -> ClaimRow:
    """Let the board in that waits under a name, or with a claim of this id. Raises NotWaiting, StorageError."""
    waiting = "key_sha256 IS NOT NULL AND answered_at IS NULL AND revoked_at IS NULL AND needs_approval"
    with database.transaction() as connection:
        rows = connection.execute(
            f"SELECT * FROM claims WHERE {waiting} AND (device = ? OR claim_id = ?)",  # noqa: S608  no value is in it
            (name, name),
        ).fetchall()
        if not rows:
            names = [row[0] for row in connection.execute(f"SELECT device FROM claims WHERE {waiting}")]  # noqa: S608
            raise NotWaiting(
                f"{name!r} does not wait to be approved; "
                + (f"waiting: {', '.join(names)}" if names else "nobody does")
            )
        if len(rows) > 1:
            ids = ", ".join(row["claim_id"] for row in rows)
            raise NotWaiting(f"several boards want to be {name!r}: approve one by its claim, of {ids}")
        claim_id = rows[0]["claim_id"]
        connection.execute("UPDATE claims SET approved_at = ? WHERE claim_id = ?", (time.time(), claim_id))
        note(connection, "approve device", rows[0]["device"], claim=claim_id)
        return _row(_one(connection, claim_id), time.time())


# for the registrar ----


def find_record(read: Read, claim_id: str) -> Record | None:
    """Return what is known of a claim, None when it was never made. Raises what `read` does."""
    rows = read("SELECT * FROM claims WHERE claim_id = ?", (claim_id,))
    if not rows:
        return None
    row = rows[0]
    valid = read(
        "SELECT COUNT(*) FROM certificates WHERE device = ? AND key_sha256 = ? AND revoked_at IS NULL",
        (row["device"], row["key_sha256"]),
    )[0][0]
    known = Known(
        expires_at=row["expires_at"],
        needs_approval=bool(row["needs_approval"]),
        is_revoked=row["revoked_at"] is not None,
        key_sha256=row["key_sha256"],
        is_approved=row["approved_at"] is not None,
        is_answered=row["answered_at"] is not None,
        is_certificate_revoked=row["answered_at"] is not None and not valid,
    )
    return Record(claim_id, row["secret"], json.loads(row["tags"]), row["device"], known, _asked(row))


def store_request(connection: sqlite3.Connection, claim_id: str, asked: Asked, device: str) -> None:
    """Note who asks with a claim, and the name that it is to have."""
    connection.execute(
        "UPDATE claims SET request = ?, request_id = ?, key_sha256 = ?, device = ?,"
        " requested_at = coalesce(requested_at, ?) WHERE claim_id = ?",
        (asked.payload, asked.request.request_id, asked.key_sha256, device, time.time(), claim_id),
    )


def store_contest(connection: sqlite3.Connection, claim_id: str, board: str) -> bool:
    """Note that another board asks with a used claim; returns whether that is news."""
    row = _one(connection, claim_id)
    if row["contested_board"] == board:
        return False
    connection.execute(
        "UPDATE claims SET contested_at = ?, contested_board = ? WHERE claim_id = ?", (time.time(), board, claim_id)
    )
    note(connection, "claim used twice", claim_id, device=row["device"], other_board=board)
    return True


def approved_claims(database: Database) -> tuple[str, ...]:
    """Return the ids of claims that were approved and whose boards wait for their answers. Raises StorageError."""
    rows = database.read(
        "SELECT claim_id FROM claims WHERE approved_at IS NOT NULL AND answered_at IS NULL AND revoked_at IS NULL"
    )
    return tuple(row[0] for row in rows)


def describe_board(request: CertificateRequest) -> str:
    """Say for people what board asks."""
    board = request.board
    return printable(f"{board.model} ({board.architecture})") + (f" {board.board_id[:12]}" if board.board_id else "")


def _asked(row: Row) -> Asked | None:
    if row["request"] is None:
        return None
    return Asked(parse(CertificateRequest, row["request"].encode()), row["request"], row["key_sha256"])


def _one(connection: sqlite3.Connection, claim_id: str) -> Row:
    row: Row | None = connection.execute("SELECT * FROM claims WHERE claim_id = ?", (claim_id,)).fetchone()
    if row is None:
        raise UnknownClaim(f"no claim {claim_id!r} was ever made here; `autoglm-edge fleet claim list` has all")
    return row


def _row(row: Row, now: float) -> ClaimRow:
    asked = _asked(row)
    return ClaimRow(
        claim_id=row["claim_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        tags=json.loads(row["tags"]),
        needs_approval=bool(row["needs_approval"]),
        device=row["device"],
        state=_state(row, now),
        board=describe_board(asked.request) if asked else None,
        requested_at=row["requested_at"],
        contested_at=row["contested_at"],
        contested_board=row["contested_board"],
    )


def _state(row: Row, now: float) -> str:
    if row["answered_at"] is not None:
        return "used"
    if row["revoked_at"] is not None:
        return "revoked"
    if row["approved_at"] is not None:
        return "approved"
    if row["key_sha256"] is not None:
        return "waiting"
    return "expired" if now >= row["expires_at"] else "open"
