"""A file is hashed and synced while it grows; what goes wrong with that is found when it is finished."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from autoglm_edge_agent.updates.partial import PartialFile
from autoglm_edge_agent.updates.settling import Settling
from autoglm_edge_protocol.chunks import Chunk, ChunkedFile
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk

STEP_BYTES = 1000
DATA = random.Random(5).randbytes(10_500)


class CountingDisk(Disk):
    """Counts what is synced; the sync of one number fails."""

    def __init__(self, failing: int | None = None) -> None:
        self.synced = 0
        self._failing = failing

    def sync(self, file: IO[bytes]) -> None:
        self.synced += 1
        if self.synced == self._failing:
            raise OSError("the card is worn")
        super().sync(file)


class Growing:
    """A partial file with its settling."""

    def __init__(self, path: Path, disk: Disk, opened: IO[bytes]) -> None:
        file = ChunkedFile(
            sha256=sha256_of(DATA), size_bytes=len(DATA), chunks=(Chunk(size_bytes=len(DATA), sha256=sha256_of(DATA)),)
        )
        self.partial = PartialFile(disk, opened, file)
        self.settling = Settling(self.partial, path, STEP_BYTES)

    async def write(self, begin: int, end: int) -> None:
        self.partial.write(begin, DATA[begin:end])
        self.settling.reached(end)
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def growing(path: Path, disk: Disk) -> Iterator[Growing]:
    with disk.open_write(path) as opened:
        yield Growing(path, disk, opened)


@pytest.mark.parametrize("piece_bytes", [100, 999, 1000, 4000, len(DATA)])
async def test_the_digest_is_that_of_the_file_however_it_grows(tmp_path: Path, piece_bytes: int) -> None:
    disk = CountingDisk()
    with growing(tmp_path / "file", disk) as file:
        for begin in range(0, len(DATA), piece_bytes):
            await file.write(begin, min(begin + piece_bytes, len(DATA)))
        before = disk.synced
        assert await file.settling.finish() == sha256_of(DATA)
    assert (before > 0) == (piece_bytes >= STEP_BYTES or len(DATA) > STEP_BYTES)
    assert disk.synced == before + 1, "the last bytes are synced, too"


async def test_what_was_rewritten_behind_it_gives_another_digest(tmp_path: Path) -> None:
    with growing(tmp_path / "file", Disk()) as file:
        file.partial.write(0, b"not yet right" * 200)
        file.settling.reached(2600)
        await asyncio.sleep(0.05)
        file.partial.write(0, DATA)
        found = await file.settling.finish()
    assert found == hashlib.sha256((b"not yet right" * 200)[:2600] + DATA[2600:]).hexdigest() != sha256_of(DATA)


async def test_a_disk_that_fails_is_heard_of_at_the_end(tmp_path: Path) -> None:
    with growing(tmp_path / "file", CountingDisk(failing=1)) as file:
        for begin in range(0, len(DATA), 500):
            await file.write(begin, min(begin + 500, len(DATA)))
        with pytest.raises(OSError, match="worn"):
            await file.settling.finish()
        await file.settling.stop()


async def test_it_has_ended_when_it_is_stopped(tmp_path: Path) -> None:
    disk = CountingDisk()
    with growing(tmp_path / "file", disk) as file:
        file.partial.write(0, DATA)
        file.settling.reached(len(DATA))
        await file.settling.stop()
        synced = disk.synced
        await asyncio.sleep(0.05)
        assert disk.synced == synced
