from __future__ import annotations

import random
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_edge_agent.updates.blocks import CORRUPT_LIMIT, BlockTransfer, CorruptChunk
from autoglm_edge_agent.updates.pace import RETRY_MAX_S, RETRY_S, WINDOW_MAX, WINDOW_MIN
from autoglm_edge_protocol.chunks import Chunk, ChunkedFile
from autoglm_edge_protocol.digests import sha256_of

MOST_BLOCKS = 300
MOST_STEPS = 6000
"""Of a transfer of so many blocks: of 100 that arrive 40 are there already, and a wrong one costs its chunk again."""


def _cut(data: bytes, sizes: list[int]) -> ChunkedFile:
    starts = [0, *accumulate(sizes)]
    pieces = [data[start : start + size] for start, size in zip(starts, sizes, strict=False)]
    chunks = tuple(Chunk(size_bytes=len(piece), sha256=sha256_of(piece)) for piece in pieces)
    return ChunkedFile(sha256=sha256_of(data), size_bytes=len(data), chunks=chunks)


class Receiver:
    """A device with its partial file in memory, and a clock that advances."""

    def __init__(self, data: bytes, sizes: list[int], block_bytes: int, verified: set[int]) -> None:
        self.data, self.file, self.block_bytes = data, _cut(data, sizes), block_bytes
        self.now = 1000.0
        self.transfer = BlockTransfer(self.file, block_bytes, verified, self.now, lambda: 1.0)
        self.partial = bytearray(len(data))
        for chunk in verified:
            start, end = self.transfer.chunk_range(chunk)
            self.partial[start:end] = data[start:end]
        self.right = set(verified)
        self.asked = 0

    def ask(self) -> list[int]:
        blocks = self.transfer.requests(self.now)
        assert len(set(blocks)) == len(blocks) <= WINDOW_MAX
        for block in blocks:
            assert self._wanting(block), f"block {block} holds nothing that is missing"
        self.asked += len(blocks)
        return blocks

    def _wanting(self, block: int) -> bool:
        start = block * self.block_bytes
        end = min(start + self.block_bytes, len(self.data))
        return any(
            chunk not in self.right
            for chunk in range(len(self.file.chunks))
            if self.transfer.chunk_range(chunk)[0] < end and start < self.transfer.chunk_range(chunk)[1]
        )

    def block(self, number: int) -> bytes:
        return self.data[number * self.block_bytes : (number + 1) * self.block_bytes]

    def take(self, offset: int, data: bytes) -> None:
        if not self.transfer.accepts(offset, len(data)):
            self.transfer.refused(offset)
            return
        self.partial[offset : offset + len(data)] = data
        for chunk in self.transfer.received(offset, self.now):
            start, end = self.transfer.chunk_range(chunk)
            if sha256_of(bytes(self.partial[start:end])) == self.file.chunks[chunk].sha256:
                self.transfer.verified(chunk)
                self.right.add(chunk)
            else:
                self.right.discard(chunk)
                self.transfer.corrupt(chunk)
        assert 0 <= self.transfer.verified_bytes <= len(self.data)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, list[int], int, set[int]]:
    sizes = draw(st.lists(st.integers(1, 400), max_size=25))
    data = random.Random(draw(st.integers(0, 1000))).randbytes(sum(sizes))
    verified = draw(st.sets(st.integers(0, max(0, len(sizes) - 1)))) if sizes else set()
    least = max(1, len(data) // MOST_BLOCKS)
    return data, sizes, draw(st.integers(least, 300)), verified


@settings(max_examples=200)
@given(files(), st.integers(0, 10_000), st.floats(0, 0.6), st.floats(0, 0.4))
def test_any_file_completes_byte_exact_through_any_network(
    file: tuple[bytes, list[int], int, set[int]], seed: int, loss: float, duplication: float
) -> None:
    chance = random.Random(seed)
    receiver = Receiver(*file)
    flying: list[int] = []
    harm: set[int] = set()
    for _ in range(MOST_STEPS):
        if receiver.transfer.complete:
            break
        flying += [block for block in receiver.ask() if chance.random() >= loss]
        if not flying:
            receiver.now = max(receiver.now, receiver.transfer.retry_at)
            continue
        block = flying.pop(chance.randrange(len(flying)))
        if chance.random() < duplication:
            flying.append(block)
        data = receiver.block(block)
        if block not in harm and chance.random() < 0.05 and not harm:  # one wrong block, once: below the limit
            harm.add(block)
            data = bytes(byte ^ 255 for byte in data)
        receiver.take(block * receiver.block_bytes, data)
        receiver.now += 0.001
    assert receiver.transfer.complete
    assert bytes(receiver.partial) == receiver.data
    assert receiver.transfer.verified_bytes == len(receiver.data)
    assert receiver.ask() == []


def test_a_corrupt_block_over_a_chunk_that_was_right_is_noticed() -> None:
    receiver = Receiver(bytes(range(200)), [100, 100], 150, {0})
    assert receiver.ask() == [0, 1]
    receiver.take(150, receiver.block(1))
    wrong = bytearray(receiver.block(0))
    wrong[3] ^= 1  # in the chunk that was verified before
    receiver.take(0, bytes(wrong))
    assert receiver.transfer.verified_bytes == 100
    for block in receiver.ask():
        receiver.take(block * 150, receiver.block(block))
    assert receiver.transfer.complete
    assert bytes(receiver.partial) == receiver.data


@pytest.mark.parametrize("spoiled", [lambda b: b[:-1], lambda b: b + b"x", lambda b: bytes(len(b))])
def test_what_is_always_wrong_ends_after_a_few_times(spoiled: object) -> None:
    assert callable(spoiled)
    receiver = Receiver(b"x" * 1000, [1000], 100, set())
    with pytest.raises(CorruptChunk) as caught:
        for _ in range(100):
            for block in receiver.ask():
                receiver.take(block * 100, spoiled(receiver.block(block)))
    assert caught.value.number == 0
    assert receiver.asked <= CORRUPT_LIMIT * 10 + WINDOW_MIN


def test_silence_makes_no_storm() -> None:
    receiver = Receiver(b"x" * 100_000, [100_000], 100, set())
    asked_at = []
    while receiver.now < 1000.0 + 600:
        if receiver.ask():
            asked_at.append(receiver.now)
        receiver.now += 0.1
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    # RETRY_S, then twice as long each time up to RETRY_MAX_S
    assert pauses[0] == pytest.approx(RETRY_S, abs=0.2)
    assert all(later >= earlier - 0.2 for earlier, later in pairwise(pauses))
    assert pauses[-1] == pytest.approx(RETRY_MAX_S, abs=0.2)
    assert len(asked_at) < 30


def test_a_steady_stream_is_asked_for_once() -> None:
    receiver = Receiver(b"x" * 10_000, [5_000, 5_000], 100, set())
    flying: list[int] = []
    while not receiver.transfer.complete:
        flying += receiver.ask()
        block = flying.pop(0)
        receiver.now += 0.5  # a slow link: never silent for RETRY_S
        receiver.take(block * 100, receiver.block(block))
    assert receiver.asked == 100


def test_a_lost_connection_asks_again_at_once() -> None:
    receiver = Receiver(b"x" * 1000, [1000], 100, set())
    first = receiver.ask()
    assert receiver.ask() == []
    receiver.transfer.restart_timer(receiver.now)
    assert receiver.ask() == first[: WINDOW_MIN // 2]


def test_what_is_asked_for_after_a_long_absence_gets_its_time() -> None:
    receiver = Receiver(b"x" * 1000, [1000], 100, set())
    first = receiver.ask()
    receiver.transfer.restart_timer(receiver.now)
    receiver.now += 60
    assert receiver.ask() == first[: WINDOW_MIN // 2]
    receiver.now += RETRY_S - 0.001
    assert receiver.ask() == []
    receiver.now += 0.002
    assert receiver.ask() != []
