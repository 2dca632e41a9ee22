"""A small disk of its own for one agent, which a test can fill and free.

A tmpfs in a mount namespace of the agent's own, where the system allows that; otherwise a disk that says it is full
while a file is there.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from autoglm_edge_protocol.durable import Disk

_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


def _namespace() -> list[str] | None:
    """Return the command that gives a process mounts of its own, None where that is not allowed."""
    for command in (["unshare", "-rm"], ["unshare", "-m"]):
        try:
            tried = subprocess.run(
                [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
            )
        except OSError:
            return None
        if tried.returncode == 0:
            return command
    return None


class SmallDisk:
    """Where an agent's state lies."""

    def __init__(self, directory: Path, size_bytes: int, *, mounted: bool) -> None:
        self.directory = directory
        self._size_bytes = size_bytes
        self._namespace = _namespace() if mounted else None
        directory.mkdir(parents=True)
        print(f"small disk: {'tmpfs' if self._namespace else 'injected'}")

    @property
    def wrapper(self) -> list[str]:
        if self._namespace is None:
            return [sys.executable, "-m", "tests.faults.small_disks", str(self.directory), str(self._size_bytes)]
        return [*self._namespace, "sh", "-c", _MOUNT, "sh", str(self._size_bytes), str(self.directory)]

    def fill(self, pid: int, size_bytes: int | None = None) -> None:
        """Use up the disk of this process, or so much of it."""
        left = self._size_bytes if size_bytes is None else size_bytes
        with self._filler(pid).open("ab", buffering=0) as file:
            try:
                while left > 0:
                    left -= file.write(bytes(min(left, 4096)))
            except OSError as error:
                assert error.errno == errno.ENOSPC and size_bytes is None

    def free(self, pid: int) -> None:
        self._filler(pid).unlink()

    def _filler(self, pid: int) -> Path:
        root = Path(f"/proc/{pid}/root") if self._namespace else Path("/")
        return root / self.directory.relative_to("/") / "filler"


class InjectedDisk(Disk):
    """A disk of a certain size, whose other user is the file `filler`."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self._directory = directory
        self._size_bytes = size_bytes

    def free_bytes(self, path: Path) -> int:
        used = sum(file.stat().st_blocks * 512 for file in self._directory.rglob("*") if file.is_file())
        return max(0, self._size_bytes - used)

    def write_at(self, file: IO[bytes], offset: int, data: bytes | memoryview) -> None:
        if self.free_bytes(self._directory) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write_at(file, offset, data)


def _main() -> None:
    import asyncio
    import logging

    from autoglm_edge_agent.app import Agent
    from autoglm_edge_agent.config_file import load_config

    directory, size_bytes, *command = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)

    async def run() -> None:
        await Agent(load_config(Path(command[-1])), InjectedDisk(Path(directory), int(size_bytes))).run()

    asyncio.run(run())


if __name__ == "__main__":
    _main()
