"""The accelerator, shared by several models on one board: a lock on a file, held for one run.

The kernel frees it when its holder dies. A holder that hangs is ended by its own agent (`run_timeout_s`), and one that
waits gives up after a while with an error that may be tried again.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

LONGEST_WAIT_S = 30.0
_FIRST_PAUSE_S = 0.0002
_LAST_PAUSE_S = 0.002


class Lease:
    """A context manager for one thread. Raises OSError where the file cannot be made, TimeoutError on entering."""

    def __init__(self, path: Path, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._path = path
        self._longest_wait_s = longest_wait_s
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)

    def __enter__(self) -> None:
        until = time.monotonic() + self._longest_wait_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    text = f"another model has held the accelerator for {self._longest_wait_s:.0f} s"
                    raise TimeoutError(text) from None
                time.sleep(pause_s)
                pause_s = min(_LAST_PAUSE_S, 1.5 * pause_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)
