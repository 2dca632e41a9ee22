"""The state directory as a whole: one agent at a time, and a session counter that only grows."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from autoglm_edge_agent.errors import StateError
from autoglm_edge_protocol.durable import Disk

CONNECTIONS_PER_START = 1 << 20
_MOST_STARTS = (1 << 32) - 1
"""So that a session is a number that a document carries, whatever the file or the clock says."""


class StateDirectory:
    """Holds the lock of a state directory until it is closed."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        try:
            disk.make_directories(path)
            self._lock = _open(path / "lock")
        except OSError as error:
            raise StateError(f"the state directory {path} cannot be used: {error}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StateError(f"another agent is running on {path}") from None

    def close(self) -> None:
        """Give the directory free."""
        os.close(self._lock)

    def next_session(self, time_floor: float = 0.0) -> int:
        """Return a number above all session numbers used before, leaving room for this start's connections.

        Never below the clock's seconds, nor those of `time_floor`, where the clock may be behind: a device that was
        flashed anew begins above what the fleet remembers of it, and would not be listened to else. A full disk must
        not keep the agent from starting: then the number is taken, though not kept.
        """
        path = self.path / "session"
        try:
            starts = int(path.read_text()) + 1
        except (OSError, ValueError):
            starts = 1
        starts = min(max(starts, int(time.time()), int(time_floor)), _MOST_STARTS)
        with contextlib.suppress(OSError):
            self._disk.commit(path, str(starts).encode())
        return starts * CONNECTIONS_PER_START


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    # What is here can still serve. A lock needs no more than a file that can be read.
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
