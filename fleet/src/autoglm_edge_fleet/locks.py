"""A lock between processes that the operating system gives back when its holder dies, on every platform.

An SQLite file held in an exclusive transaction: SQLite knows each platform's file locks, so that we need not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoglm_edge_fleet.errors import InUse, StorageError


@contextmanager
def exclusive(path: Path, refusal: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file for the time of the block. Raises InUse with `refusal` when another holds it, StorageError."""
    try:
        connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be made: {error}") from None
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InUse(refusal) from None
            raise StorageError(f"{path} cannot be locked: {error}") from None
        yield
    finally:
        connection.close()
