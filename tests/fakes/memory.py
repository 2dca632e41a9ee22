"""How much memory processes take while something happens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from types import TracebackType

import psutil

LOOK_S = 0.05


class MemoryWatch:
    """Looks at the resident memory of processes, each named by a function, since a test may start it anew.

    `growth_bytes` says by how much each was above what it took when the watch began.
    """

    def __init__(self, pids: Mapping[str, Callable[[], int]]) -> None:
        self._pids = dict(pids)
        self._first = {name: psutil.Process(pid()).memory_info().rss for name, pid in self._pids.items()}
        self._most = dict(self._first)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def growth_bytes(self) -> dict[str, int]:
        return {name: self._most[name] - first for name, first in self._first.items()}

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            for name, pid in self._pids.items():
                with contextlib.suppress(psutil.NoSuchProcess):  # it was killed and is not started again yet
                    self._most[name] = max(self._most[name], psutil.Process(pid()).memory_info().rss)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
