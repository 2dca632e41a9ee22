"""A disk that fails, or a device that loses power, at the n-th operation of the file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from autoglm_edge_protocol.durable import Disk


class PowerLost(BaseException):
    """Nothing runs after this. No `except Exception` catches it."""


class FaultyDisk(Disk):
    """Counts every primitive operation and lets `fault` decide what becomes of each.

    Args:
        fault: called with the number of the operation, from 0, and its name, before it is done; raises to fail it. A
            failing write leaves half of its bytes behind, as real ones do.
    """

    def __init__(self, fault: Callable[[int, str], None]) -> None:
        self._fault = fault
        self.operations: list[str] = []
        self.is_off = False
        """The power was lost: whoever waits for something waits in vain."""

    def _operate(self, name: str) -> None:
        self.operations.append(name)
        try:
            self._fault(len(self.operations) - 1, name)
        except PowerLost:
            self.is_off = True
            raise

    def make_directory(self, path: Path) -> None:
        self._operate("make_directory")
        super().make_directory(path)

    def open_write(self, path: Path) -> IO[bytes]:
        self._operate("open_write")
        return super().open_write(path)

    def open_private(self, path: Path) -> IO[bytes]:
        self._operate("open_private")
        return super().open_private(path)

    def write_at(self, file: IO[bytes], offset: int, data: bytes | memoryview) -> None:
        try:
            self._operate("write_at")
        except BaseException:
            super().write_at(file, offset, bytes(data)[: len(data) // 2])
            raise
        super().write_at(file, offset, data)

    def truncate(self, file: IO[bytes], size_bytes: int) -> None:
        self._operate("truncate")
        super().truncate(file, size_bytes)

    def sync(self, file: IO[bytes]) -> None:
        self._operate("sync")
        super().sync(file)

    def sync_directory(self, path: Path) -> None:
        self._operate("sync_directory")
        super().sync_directory(path)

    def replace(self, source: Path, target: Path) -> None:
        self._operate("replace")
        super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._operate("link")
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self._operate("unlink")
        super().unlink(path)

    def remove_directory(self, path: Path) -> None:
        self._operate("remove_directory")
        super().remove_directory(path)


def failing_at(at: int, number: int, times: int = 1) -> Callable[[int, str], None]:
    """Fail operations `at` to `at + times - 1` with this error number."""

    def fault(operation: int, _name: str) -> None:
        if at <= operation < at + times:
            raise OSError(number, os.strerror(number))

    return fault


def power_lost_at(at: int) -> Callable[[int, str], None]:
    """Stop dead at this operation, and let nothing be done afterwards."""

    def fault(operation: int, _name: str) -> None:
        if operation >= at:
            raise PowerLost

    return fault


FULL_OR_FAILING = (errno.ENOSPC, errno.EIO)
