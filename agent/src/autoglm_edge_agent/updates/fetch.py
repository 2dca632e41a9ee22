"""Fetching files from the fleet, block by block, into partial files.

A partial file needs no index of its own: on a restart its chunks are hashed, and those that are right are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.blocks import BlockTransfer, CorruptChunk
from autoglm_edge_agent.updates.seeding import plant
from autoglm_edge_agent.updates.seeds import NOWHERE, Places
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.errors import DigestMismatch
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest, to_ranges

PATIENCE_S = 60.0
"""Silence, while connected, after which the fleet is reported as silent; the fetch then begins anew by itself."""
_ASSEMBLY_ATTEMPTS = 2


Progress = Callable[[str, int], None]
"""Told how many bytes of a file (SHA-256, bytes) are in place and verified: first what was there already."""


class Requests(Protocol):
    """Where requests go."""

    @property
    def connected(self) -> bool:
        """Whether a request can be sent now."""

    def request(self, request: FetchRequest) -> bool:
        """Send a request, at most once; False when it could not be sent."""


@dataclass(frozen=True)
class Block:
    """Bytes of a file, as they arrived."""

    sha256: str
    offset: int
    data: bytes


class Fetcher:
    """Fetches one file at a time.

    Args:
        store: where partial files lie and whole ones go.
        requests: the way to the fleet.
        on_progress: told when a file is begun and with every block.
    """

    def __init__(self, store: Store, requests: Requests, on_progress: Progress) -> None:
        self._store = store
        self._requests = requests
        self._on_progress = on_progress
        self._inbox: asyncio.Queue[Block | FetchRefusal] = asyncio.Queue(256)
        self._wanted: str | None = None
        self._request_id = random.randrange(1 << 31)  # noqa: S311 - tells requests apart, hides nothing
        self._first_request_id = self._request_id + 1

    def deliver(self, item: Block | FetchRefusal) -> None:
        """Take what arrived for the file that is being fetched; anything else is dropped."""
        if isinstance(item, FetchRefusal) and not self._first_request_id <= item.request_id <= self._request_id:
            return  # of a fetch that is over: what the fleet did not have then it may have now
        if item.sha256 == self._wanted:
            with contextlib.suppress(asyncio.QueueFull):  # asked for again when its time is up
                self._inbox.put_nowait(item)

    async def fetch(self, file: ChunkedFile, places: Places = NOWHERE) -> None:
        """Bring a file into the store; returns when it is there, whole and verified.

        Args:
            file: what to fetch.
            places: where chunks of it lie on this disk; they are copied, and the others asked for.

        Raises:
            Refusal: the fleet does not have it (`not-found`), or its bytes are wrong each time (`corrupt-data`).
            Hindrance: the fleet is silent (`fleet-silent`).
            OSError: from the disk.
        """
        for _ in range(_ASSEMBLY_ATTEMPTS):
            if self._store.has(file.sha256):
                return
            await self._assemble(file, places)
            with contextlib.suppress(DigestMismatch):
                await in_thread(self._store.admit, file.sha256)
        if not self._store.has(file.sha256):
            raise Refusal("corrupt-data", f"the chunks of {file.sha256[:12]} are right, but the whole file is not")

    async def _assemble(self, file: ChunkedFile, places: Places) -> None:
        disk, path = self._store.disk, self._store.partial_path(file.sha256)
        with disk.open_write(path) as partial:
            if path.stat().st_size > file.size_bytes:
                disk.truncate(partial, file.size_bytes)
            verified = await in_thread(_verified_chunks, path, file)
            verified = await plant(self._store, partial, file, verified, places)
            transfer = BlockTransfer(file, LIMITS.block_bytes, verified, time.monotonic(), _jitter)
            self._on_progress(file.sha256, transfer.verified_bytes)
            self._wanted, self._inbox = file.sha256, asyncio.Queue(256)
            self._first_request_id = self._request_id + 1
            try:
                await self._transfer(partial, path, transfer, file)
            except CorruptChunk as error:
                raise Refusal("corrupt-data", f"{file.sha256[:12]}: {error}") from None
            finally:
                self._wanted = None
            # Not in the event loop: flushing a model to a slow card takes seconds, and workers are being listened to.
            await in_thread(disk.sync, partial)

    async def _transfer(self, partial: IO[bytes], path: Path, transfer: BlockTransfer, file: ChunkedFile) -> None:
        silent_since = time.monotonic()
        while not transfer.complete:
            now = time.monotonic()
            if not self._requests.connected:
                transfer.restart_timer(now)
                silent_since = now
                await asyncio.sleep(0.1)
                continue
            self._ask(file.sha256, transfer, now)
            try:
                item = await asyncio.wait_for(self._inbox.get(), max(0.01, min(1.0, transfer.retry_at - now)))
            except (asyncio.TimeoutError, TimeoutError):
                if time.monotonic() - silent_since > PATIENCE_S:
                    raise Hindrance("fleet-silent", f"nothing came for {PATIENCE_S:.0f} s, asking again") from None
                continue
            if isinstance(item, FetchRefusal):
                raise Refusal(item.reason.code, f"the fleet cannot send {file.sha256[:12]}: {item.reason.message}")
            if not transfer.accepts(item.offset, len(item.data)):
                transfer.refused(item.offset)
                continue
            silent_since = time.monotonic()
            self._store.disk.write_at(partial, item.offset, item.data)
            for chunk in transfer.received(item.offset, silent_since):
                _check(path, transfer, file, chunk)
            self._on_progress(file.sha256, transfer.verified_bytes)

    def _ask(self, sha256: str, transfer: BlockTransfer, now: float) -> None:
        blocks = transfer.requests(now)
        if blocks:
            self._request_id += 1
            request = FetchRequest(
                request_id=self._request_id,
                sha256=sha256,
                block_bytes=LIMITS.block_bytes,
                ranges=to_ranges(blocks),
            )
            self._requests.request(request)


def _check(path: Path, transfer: BlockTransfer, file: ChunkedFile, chunk: int) -> None:
    start, end = transfer.chunk_range(chunk)
    with path.open("rb") as reader:
        reader.seek(start)
        if sha256_of(reader.read(end - start)) == file.chunks[chunk].sha256:
            transfer.verified(chunk)
        else:
            transfer.corrupt(chunk)


def _verified_chunks(path: Path, file: ChunkedFile) -> set[int]:
    if path.stat().st_size == 0:
        return set()
    with path.open("rb") as reader:
        return {
            number
            for number, chunk in enumerate(file.chunks)
            if sha256_of(reader.read(chunk.size_bytes)) == chunk.sha256
        }


def _jitter() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
