"""Starts a real agent that is killed (SIGKILL) at the n-th operation of the file system, once it is told which.

The number is written to a file that the disk looks for; from then on it counts, and writes beside that file how many
there were. A write that is cut off leaves half of its bytes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import IO

from tests.faults.disks import FaultyDisk

from autoglm_edge_protocol.durable import Disk

NEVER = 1_000_000
"""Operations that nothing in the tests has: with this number they are counted only."""


def counted(control: Path) -> int:
    """Return how many operations there were since the number was found."""
    return int(_count_path(control).read_text())


def _count_path(control: Path) -> Path:
    return control.with_name(f"{control.name}.counted")


class Killed(BaseException):
    """Never caught: the process ends before."""


class KillingDisk(FaultyDisk):
    def __init__(self, control: Path) -> None:
        super().__init__(self._count)
        self._control = control
        self._at: int | None = None
        self._begun = 0

    def _count(self, operation: int, _name: str) -> None:
        if self._control.exists():
            self._at, self._begun = int(self._control.read_text()), operation
            self._control.unlink()
        if self._at is None:
            return
        if operation - self._begun == self._at:
            raise Killed
        _count_path(self._control).write_text(str(operation - self._begun + 1))

    def _operate(self, name: str) -> None:
        try:
            super()._operate(name)
        except Killed:
            if name != "write_at":
                os.kill(os.getpid(), signal.SIGKILL)
            raise

    def write_at(self, file: IO[bytes], offset: int, data: bytes | memoryview) -> None:
        try:
            self._operate("write_at")
        except Killed:
            Disk.write_at(self, file, offset, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        Disk.write_at(self, file, offset, data)


def wrapper(control: Path) -> list[str]:
    """Return what is to be put before an agent's command line."""
    return [sys.executable, "-m", "tests.faults.killed_agents", str(control)]


def _main() -> None:
    from autoglm_edge_agent.app import Agent
    from autoglm_edge_agent.config_file import load_config

    control, *command = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)

    async def run() -> None:
        await Agent(load_config(Path(command[-1])), KillingDisk(Path(control))).run()

    asyncio.run(run())


if __name__ == "__main__":
    _main()
