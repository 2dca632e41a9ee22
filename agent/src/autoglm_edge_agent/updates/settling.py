"""Hashing and syncing a file behind those who write it, so that neither is left for the end.

What is synced as it comes does not pile up in memory either, which a slow card would take seconds to write.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from autoglm_edge_agent.cancellation import cancel, in_thread
from autoglm_edge_agent.updates.partial import PartialFile

STEP_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 256 * 1024


class Settling:
    """The settling of one file, in threads, one after the other.

    Args:
        partial: the file.
        path: its name, for reading it without moving the place at which it is written.
        step_bytes: how far it stays behind.
    """

    def __init__(self, partial: PartialFile, path: Path, step_bytes: int = STEP_BYTES) -> None:
        self._partial = partial
        self._step_bytes = step_bytes
        self._path = path
        self._digest = hashlib.sha256()
        self._settled_bytes = 0
        self._work: asyncio.Task[None] | None = None

    def reached(self, verified_bytes: int) -> None:
        """Note that so many bytes from the beginning on are in place and right."""
        if verified_bytes - self._settled_bytes >= self._step_bytes and self._work is None:
            self._work = asyncio.ensure_future(in_thread(self._settle, verified_bytes))
            self._work.add_done_callback(self._done)

    def _done(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and work.exception() is None:
            self._work = None  # else it stays, for `finish` to raise

    async def finish(self) -> str:
        """Settle the rest; returns the digest of the file, if none of it was written twice. Raises OSError."""
        if self._work is not None:
            await self._work
        await in_thread(self._settle, self._partial.file.size_bytes)
        return self._digest.hexdigest()

    async def stop(self) -> None:
        """Return when nothing is being done any more."""
        if self._work is not None:
            await cancel(self._work)

    def _settle(self, until_bytes: int) -> None:
        piece = memoryview(bytearray(_PIECE_BYTES))
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._settled_bytes)
            while count := file.readinto(piece[: until_bytes - self._settled_bytes]):
                self._digest.update(piece[:count])
                self._settled_bytes += count
        self._partial.sync()
