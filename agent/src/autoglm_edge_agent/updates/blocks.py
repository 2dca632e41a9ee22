"""Which blocks of a file to ask for next, and whether to ask at all, without any I/O.

A file travels in blocks of one size, numbered over the whole file; its chunks, each with a digest, are cut elsewhere
and of any size. A block is missing as long as a chunk that it overlaps lacks its bytes.

A transfer pulls, by windows of requests, or follows a stream of the file that many devices share, in which blocks come
unasked and in order. It follows until the last block that it lacked has gone by or nothing comes any more, and pulls
what it has missed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection

from autoglm_edge_agent.updates.pace import Pace
from autoglm_edge_protocol.chunks import ChunkedFile

FOLLOW_PATIENCE_S = 6.0
"""Silence after which a stream counts as over: it waits for its followers first, and goes at the pace of the median."""
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
        self.block_bytes = block_bytes
        self._pace = Pace(now, jitter)
        self._starts = file.starts()
        self._unverified = set(range(len(file.chunks))) - set(verified)
        self._first_unverified = 0
        self._verified_bytes = sum(file.chunks[chunk].size_bytes for chunk in verified)
        self._missing = {block for chunk in self._unverified for block in self._blocks_of(chunk)}
        self._queue = deque(sorted(self._missing))
        self._outstanding: set[int] = set()
        self._corrupt: dict[int, int] = {}
        self._follow_until: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every chunk is verified."""
        return not self._unverified

    @property
    def verified_bytes(self) -> int:
        """How many bytes are in place and known to be right."""
        return self._verified_bytes

    @property
    def verified_from_start_bytes(self) -> int:
        """How many bytes from the beginning on are in place and known to be right."""
        while self._first_unverified < len(self._file.chunks) and self._first_unverified not in self._unverified:
            self._first_unverified += 1
        return self._starts[self._first_unverified]

    @property
    def retry_at(self) -> float:
        """When `requests` is to be called again though nothing has come."""
        return self._pace.retry_at

    @property
    def missing(self) -> frozenset[int]:
        """The blocks that are not in place."""
        return frozenset(self._missing)

    @property
    def following(self) -> bool:
        """Whether blocks are waited for that nobody has asked for."""
        return self._follow_until is not None

    @property
    def awaits_blocks(self) -> bool:
        """Whether anything is to come, asked for or by itself."""
        return self.following or bool(self._outstanding)

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """Return where a chunk starts and ends, in bytes."""
        return self._starts[chunk], self._starts[chunk + 1]

    def follow(self, now: float) -> None:
        """Begin to follow: what is missing may come by itself, and what was asked for with it."""
        if self._missing:
            self._follow_until = max(self._missing)
            self._pace.forget()
            self._pace.progressed(now, FOLLOW_PATIENCE_S)

    def passed(self, block: int, now: float) -> None:
        """Note that a block of the stream has gone by, be it one that is missing here or not."""
        if self._follow_until is None:
            return
        self._pace.progressed(now, FOLLOW_PATIENCE_S)
        if block >= self._follow_until:
            self._stop_following()

    def left(self, now: float) -> None:
        """Note that nothing more of the stream will come, as this device has left it."""
        if self.following:
            self._stop_following()
            self._pace.progressed(now)

    def pulled(self) -> None:
        """Note that a block has come for this device alone: there is no stream, or not for us."""
        self._follow_until = None

    def requests(self, now: float, most: int | None = None) -> list[int]:
        """Return the blocks to ask for now, no more than `most`; they count as outstanding from here on."""
        if now >= self._pace.retry_at:
            if self.following:
                self._stop_following()
                self._pace.progressed(now)
            elif self._outstanding:
                self._give_up_outstanding()
                self._pace.timed_out(now)
            else:
                self._pace.progressed(
                    now
                )  # nothing was asked for, as there was no connection: now time begins to count
        if self.following:
            return []
        window = self._pace.window
        room = window - len(self._outstanding)
        if room < min(window // 2, len(self._queue)):
            return []  # half a window at a time: a request per block would double the number of messages
        asked: list[int] = []
        while self._queue and len(asked) < (room if most is None else min(room, most)):
            block = self._queue.popleft()
            # It may have come late after it was queued a second time, and then be queued a third time as corrupt.
            if block in self._missing and block not in self._outstanding:
                asked.append(block)
                self._outstanding.add(block)
                self._pace.asked(block, now)
        return asked

    def restart_timer(self, now: float) -> None:
        """Forget what is outstanding: the connection was lost, and what was asked for will not come."""
        self._stop_following()
        self._pace.lost(now)

    def accepts(self, offset: int, size_bytes: int) -> bool:
        """Whether a block of this size at this offset is one that is missing."""
        block, remainder = divmod(offset, self.block_bytes)
        expected = min(self.block_bytes, self._file.size_bytes - offset)
        return remainder == 0 and block in self._missing and size_bytes == expected

    def refused(self, offset: int) -> None:
        """Note a block that is not accepted. Raises CorruptChunk when it keeps coming with the wrong size.

        One that nobody misses is a duplicate and no harm; a missing one is asked for again.
        """
        block, remainder = divmod(offset, self.block_bytes)
        if remainder != 0 or block not in self._missing:
            return
        self._count_corrupt(self._chunks_of(block)[0])
        self._outstanding.discard(block)
        self._queue.append(block)

    def received(self, offset: int, now: float) -> list[int]:
        """Note that an accepted block is in place; returns the chunks that can now be verified."""
        block = offset // self.block_bytes
        self._missing.discard(block)
        self._outstanding.discard(block)
        self._pace.arrived(block, now)
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
            self._first_unverified = min(self._first_unverified, chunk)
            self._verified_bytes -= self._file.chunks[chunk].size_bytes

    def _stop_following(self) -> None:
        self._follow_until = None
        self._give_up_outstanding()

    def _give_up_outstanding(self) -> None:
        waiting = (set(self._queue) | self._outstanding) & self._missing
        self._outstanding = set()
        self._queue = deque(sorted(waiting))

    def _blocks_of(self, chunk: int) -> range:
        start, end = self.chunk_range(chunk)
        return range(start // self.block_bytes, (end - 1) // self.block_bytes + 1)

    def _chunks_of(self, block: int) -> range:
        start = block * self.block_bytes
        end = min(start + self.block_bytes, self._file.size_bytes)
        return range(bisect_right(self._starts, start) - 1, bisect_right(self._starts, end - 1))
