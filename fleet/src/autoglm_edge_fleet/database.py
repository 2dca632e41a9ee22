"""`fleet.db`: one SQLite connection (WAL, every commit synced) with its migrations. No query lives here.

SQLite's own errors become StorageError at this border. A connection serves one thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoglm_edge_fleet.errors import NewerDatabase, StorageError
from autoglm_edge_fleet.schema import MIGRATIONS

DATABASE_FILE = "fleet.db"
Value = str | int | float | None
Row = sqlite3.Row


class Database:
    """A connection to the database at `path`, made and migrated when needed. Raises StorageError, NewerDatabase."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated():
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except StorageError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def read(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """Return the rows of a query. Raises StorageError."""
        with self._translated():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside a writing transaction, committed at the end of the block, or undone.

        Raises StorageError.
        """
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def data_version(self) -> int:
        """Return a number that changes when another connection has committed. Raises StorageError."""
        return int(self.read("PRAGMA data_version")[0][0])

    def _prepare(self) -> None:
        with self._translated():
            self._connection.row_factory = Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
        self._migrate()

    def _migrate(self) -> None:
        while (version := self._version()) < len(MIGRATIONS):
            with self.transaction() as connection:
                if self._version() != version:  # another process was faster
                    continue
                for statement in MIGRATIONS[version].split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={version + 1}")
        if version > len(MIGRATIONS):
            raise NewerDatabase(f"{self._path} has version {version}, only {len(MIGRATIONS)} is understood: update")

    def _version(self) -> int:
        return int(self.read("PRAGMA user_version")[0][0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error
