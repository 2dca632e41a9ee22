"""A limit of memory for a whole container: a control group of this machine, of either version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A context manager; what is started with its `wrapper` is in the group."""

    def __init__(self) -> None:
        self._first = _V1.is_dir()
        self._folder = (_V1 if self._first else _V2) / f"autoglm-edge-test-{os.getpid()}"
        script = f'echo $$ > {self._folder}/cgroup.procs; exec "$@"'
        self.wrapper = ("sh", "-c", script, "sh")

    @staticmethod
    def can_be_made() -> bool:
        """Whether this machine lets us limit memory."""
        if _V1.is_dir():
            return os.access(_V1, os.W_OK)
        control = _V2 / "cgroup.subtree_control"
        return control.is_file() and "memory" in control.read_text() and os.access(_V2, os.W_OK)

    def __enter__(self) -> MemoryGroup:
        self._folder.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._folder.rmdir()

    @contextmanager
    def only(self, more_bytes: int) -> Iterator[None]:
        """Allow no more than what is used now and so many bytes."""
        used, limit = (
            ("memory.usage_in_bytes", "memory.limit_in_bytes") if self._first else ("memory.current", "memory.max")
        )
        self._write("memory.force_empty" if self._first else "memory.reclaim", "0")
        self._write(limit, str(int((self._folder / used).read_text()) + more_bytes))
        try:
            yield
        finally:
            self._write(limit, "-1" if self._first else "max")

    def kills(self) -> int:
        """How many processes of the group the kernel has ended for want of memory."""
        text = (self._folder / ("memory.oom_control" if self._first else "memory.events")).read_text()
        return int(dict(line.split() for line in text.splitlines())["oom_kill"])

    def _write(self, name: str, value: str) -> None:
        try:
            (self._folder / name).write_text(value)
        except OSError:
            if name not in ("memory.force_empty", "memory.reclaim"):  # to give caches back is a favour
                raise
