"""On which boards a device was seen: a card that was cloned, or moved, is noticed by what its board tells of itself.

Each presence carries a digest of the board. One identity belongs on one board; a second that is seen once may be the
card of the first moved there, and when both come again there are two cards.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from autoglm_edge_fleet.audit import note
from autoglm_edge_fleet.database import Database

MOST_BOARDS = 16
"""Of one device; further ones are not kept, and enough is known by then."""


class Finding(Enum):
    """What a sighting says that was not known before."""

    MOVED = "its card was moved to another board, or copied"
    CLONED = "CLONED: its identity is on two boards at once; revoke it, and enrol both anew"


@dataclass(frozen=True)
class Seen:
    """What is known of a device's boards."""

    last: str | None
    """The board it was seen on last; where it was never seen, the one that its certificate was given to."""
    boards: frozenset[str]
    is_cloned: bool = False


def judge(seen: Seen, board: str) -> Finding | None:
    """Return what it says that a device is seen on a board; None: nothing new."""
    if seen.last in (None, board):
        return None
    if board in seen.boards:
        return None if seen.is_cloned else Finding.CLONED
    return Finding.MOVED


def sight(database: Database, device: str, board: str) -> Finding | None:
    """Note that a device speaks from a board. Raises StorageError."""
    seen = _seen(database, device)
    now = time.time()
    if board == seen.last:
        with database.transaction() as connection:
            connection.execute(
                "UPDATE boards SET last_seen_at = ? WHERE device = ? AND board_id = ?", (now, device, board)
            )
        if seen.boards:
            return None
    finding = judge(seen, board)
    if board not in seen.boards and len(seen.boards) >= MOST_BOARDS:
        return None
    with database.transaction() as connection:
        if seen.last is not None and not seen.boards:
            connection.execute("INSERT OR IGNORE INTO boards VALUES (?, ?, ?, ?, 0)", (device, seen.last, now, now - 1))
        connection.execute(
            "INSERT INTO boards VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET last_seen_at = excluded.last_seen_at,"
            " returns = returns + ?",
            (device, board, now, now, board != seen.last),
        )
        if finding is not None:
            note(connection, "seen on another board", device, board=board, finding=finding.name.lower())
    return finding


def suspicions(database: Database) -> Mapping[str, str]:
    """Return what is said of devices that were seen on more than one board. Raises StorageError."""
    rows = database.read("SELECT device, MAX(returns) FROM boards GROUP BY device HAVING COUNT(*) > 1")
    return {row[0]: (Finding.CLONED if row[1] else Finding.MOVED).value for row in rows}


def _seen(database: Database, device: str) -> Seen:
    rows = database.read("SELECT board_id, returns FROM boards WHERE device = ? ORDER BY last_seen_at DESC", (device,))
    if rows:
        return Seen(rows[0][0], frozenset(row[0] for row in rows), any(row[1] for row in rows))
    given = database.read(
        "SELECT board_id FROM certificates WHERE device = ? AND board_id IS NOT NULL ORDER BY not_before DESC LIMIT 1",
        (device,),
    )
    return Seen(given[0][0] if given else None, frozenset())
