"""Which blocks of a file to ask for next: windows, timers and verification, without any I/O.

A file travels in blocks of one size, numbered over the whole file; its chunks, each with a digest, are cut elsewhere
and of any size. A block is missing as long as a chunk that it overlaps lacks its bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection
from itertools import accumulate

from autoglm_edge_protocol.chunks import ChunkedFile

WINDOW = 16
"""Blocks asked for and not yet here."""
RETRY_S = 2.0
"""Silence after which the outstanding blocks are asked for again; a shorter time makes storms of duplicates."""
RETRY_MAX_S = 30.0
CORRUPT_LIMIT = 3
"""A chunk that arrives wrong so many times will not arrive right."""


class CorruptChunk(Exception):
    """A chunk was wrong every time it was fetched."""

    def __init__(self, number: int) -> None:
        super().__init__(f"chunk {number} came wrong {CORRUPT_LIMIT} times")
        self.number = number


class BlockTransfer:
    """The state of fetching one file.

    Args:
        file: size and chunks.
        block_bytes: size of every block but the last.
        verified: numbers of the chunks whose bytes are in place already.
        now: monotonic seconds.
        jitter: returns a factor around 1 by which a retry is delayed, so that devices do not ask in step.
    """

    def __init__(
        self, file: ChunkedFile, block_bytes: int, verified: Collection[int], now: float, jitter: Callable[[], float]
    ) -> None:
        self._file = file
        self._block_bytes = block_bytes
        self._jitter = jitter
        self._starts = [0, *accumulate(chunk.size_bytes for chunk in file.chunks)]
        self._unverified = set(range(len(file.chunks))) - set(verified)
        self._verified_bytes = sum(file.chunks[chunk].size_bytes for chunk in verified)
        self._missing = {block for chunk in self._unverified for block in self._blocks_of(chunk)}
        self._queue = deque(sorted(self._missing))
        self._outstanding: set[int] = set()
        self._corrupt: dict[int, int] = {}
        self._retry_s = RETRY_S
        self._retry_at = now + RETRY_S

    @property
    def complete(self) -> bool:
        """Whether every chunk is verified."""
        return not self._unverified

    @property
    def verified_bytes(self) -> int:
        """How many bytes are in place and known to be right."""
        return self._verified_bytes

    @property
    def retry_at(self) -> float:
        """When `requests` is to be called again though nothing has come."""
        return self._retry_at

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """Return where a chunk starts and ends, in bytes."""
        return self._starts[chunk], self._starts[chunk + 1]

    def requests(self, now: float) -> list[int]:
        """Return the blocks to ask for now; they count as outstanding from here on."""
        if now >= self._retry_at and self._outstanding:
            self._give_up_outstanding()
            self._retry_s = min(RETRY_MAX_S, 2 * self._retry_s)
            self._retry_at = now + self._retry_s * self._jitter()
        room = WINDOW - len(self._outstanding)
        if room < min(WINDOW // 2, len(self._queue)):
            return []  # half a window at a time: a request per block would double the number of messages
        asked: list[int] = []
        while self._queue and len(asked) < room:
            block = self._queue.popleft()
            # It may have come late after it was queued a second time, and then be queued a third time as corrupt.
            if block in self._missing and block not in self._outstanding:
                asked.append(block)
                self._outstanding.add(block)
        return asked

    def restart_timer(self, now: float) -> None:
        """Forget what is outstanding: the connection was lost, and what was asked for will not come."""
        self._give_up_outstanding()
        self._retry_s = RETRY_S
        self._retry_at = now + RETRY_S

    def accepts(self, offset: int, size_bytes: int) -> bool:
        """Whether a block of this size at this offset is one that is missing."""
        block, remainder = divmod(offset, self._block_bytes)
        expected = min(self._block_bytes, self._file.size_bytes - offset)
        return remainder == 0 and block in self._missing and size_bytes == expected

    def refused(self, offset: int) -> None:
        """Note a block that is not accepted. Raises CorruptChunk when it keeps coming with the wrong size.

        One that nobody misses is a duplicate and no harm; a missing one is asked for again.
        """
        block, remainder = divmod(offset, self._block_bytes)
        if remainder != 0 or block not in self._missing:
            return
        self._count_corrupt(self._chunks_of(block)[0])
        self._outstanding.discard(block)
        self._queue.append(block)

    def received(self, offset: int, now: float) -> list[int]:
        """Note that an accepted block is in place; returns the chunks that can now be verified."""
        block = offset // self._block_bytes
        self._missing.discard(block)
        self._outstanding.discard(block)
        self._retry_s = RETRY_S
        self._retry_at = now + RETRY_S
        touched = self._chunks_of(block)
        for chunk in touched:
            self._doubt(chunk)  # also a neighbour that was right: the block has written over its end
        return [chunk for chunk in touched if self._missing.isdisjoint(self._blocks_of(chunk))]

    def verified(self, chunk: int) -> None:
        """Note that the bytes of a chunk are right."""
        if chunk in self._unverified:
            self._unverified.remove(chunk)
            self._verified_bytes += self._file.chunks[chunk].size_bytes

    def corrupt(self, chunk: int) -> None:
        """Note that the bytes of a chunk are wrong: its blocks are missing again. Raises CorruptChunk at the limit."""
        self._count_corrupt(chunk)
        for block in self._blocks_of(chunk):
            if block not in self._missing:
                self._missing.add(block)
                self._queue.append(block)

    def _count_corrupt(self, chunk: int) -> None:
        self._corrupt[chunk] = self._corrupt.get(chunk, 0) + 1
        if self._corrupt[chunk] >= CORRUPT_LIMIT:
            raise CorruptChunk(chunk)

    def _doubt(self, chunk: int) -> None:
        if chunk not in self._unverified:
            self._unverified.add(chunk)
            self._verified_bytes -= self._file.chunks[chunk].size_bytes

    def _give_up_outstanding(self) -> None:
        waiting = (set(self._queue) | self._outstanding) & self._missing
        self._outstanding = set()
        self._queue = deque(sorted(waiting))

    def _blocks_of(self, chunk: int) -> range:
        start, end = self.chunk_range(chunk)
        return range(start // self._block_bytes, (end - 1) // self._block_bytes + 1)

    def _chunks_of(self, block: int) -> range:
        start = block * self._block_bytes
        end = min(start + self._block_bytes, self._file.size_bytes)
        return range(bisect_right(self._starts, start) - 1, bisect_right(self._starts, end - 1))
