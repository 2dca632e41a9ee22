"""Where files are cut: by content, at tensors, and alike however they are read."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoglm_edge_protocol.chunks import ChunkIndex
from autoglm_edge_protocol.cutting import GEAR, MAX_BYTES, MIN_BYTES, NORMAL_BYTES, WINDOW_BYTES, cut, cut_points
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file

KIB = 1024
DATA = random.Random(7).randbytes(3 * KIB * KIB)
EVEN = bytes(1500 * KIB)
"""Without any content to cut by."""


def _ends(data: bytes, starts: tuple[int, ...] = (), piece_bytes: int = 1 << 20) -> list[int]:
    return list(cut_points((data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)), starts))


def _chunks(data: bytes, starts: tuple[int, ...] = ()) -> list[bytes]:
    return [data[begin:end] for begin, end in pairwise([0, *_ends(data, starts)])]


def _plainly(data: bytes, starts: tuple[int, ...]) -> list[int]:
    """The rule as docs/protocol.md states it, a byte at a time."""
    stops = sorted({start for start in starts if 0 < start < len(data)} | {len(data)})
    ends, begin, value = [], 0, 0
    hashes = [value := (value * 2 + int(GEAR[byte])) % 2**32 for byte in data]
    while begin < len(data):
        stop = min(begin + MAX_BYTES, next(each for each in stops if each > begin))
        for end in range(begin + MIN_BYTES, stop):
            bits = 18 if end - begin < NORMAL_BYTES else 14
            if hashes[end - 1] >> (32 - bits) == 0:
                stop = end
                break
        ends.append(stop)
        begin = stop
    return ends


_STARTS = st.lists(st.integers(-10, len(DATA) + 10), max_size=12).map(tuple)
_SLICES = st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(lambda ends: DATA[min(ends) : max(ends)])


@settings(max_examples=40)
@given(_SLICES, _STARTS)
@example(DATA, (0, 1, len(DATA) - 1, len(DATA)))
@example(EVEN, (300 * KIB,))
@example(b"", ())
@example(b"x", (0, 1))
def test_sizes_are_within_bounds_and_chunks_are_the_file(data: bytes, starts: tuple[int, ...]) -> None:
    ends = _ends(data, starts)
    assert (ends[-1] if ends else 0) == len(data)
    forced = {*starts, len(data)}
    for begin, end in pairwise([0, *ends]):
        assert 0 < end - begin <= MAX_BYTES
        assert end - begin >= MIN_BYTES or end in forced
    assert {start for start in starts if 0 < start < len(data)} <= set(ends)


@settings(max_examples=25)
@given(st.integers(20, 700_000), _STARTS)
@example(1 << 16, ())
@example(WINDOW_BYTES - 1, ())
@example(997, (100 * KIB + 1,))
def test_how_it_is_read_makes_no_difference(piece_bytes: int, starts: tuple[int, ...]) -> None:
    data = DATA[: 300 * KIB + 100 * piece_bytes] if piece_bytes > 500 else DATA[: 40 * KIB]
    assert _ends(data, starts, piece_bytes) == _ends(data, starts, len(data))


@pytest.mark.parametrize("data", [DATA[: 900 * KIB], EVEN[: 600 * KIB], DATA[: 200 * KIB] + EVEN[: 300 * KIB]])
@pytest.mark.parametrize("starts", [(), (50 * KIB, 50 * KIB + 10, 200 * KIB)])
def test_it_is_the_rule_that_is_written_down(data: bytes, starts: tuple[int, ...]) -> None:
    assert _ends(data, starts) == _plainly(data, starts)


@cache
def _digests_of_the_data() -> frozenset[str]:
    return frozenset(sha256_of(chunk) for chunk in _chunks(DATA))


@settings(max_examples=40)
@given(st.integers(0, len(DATA)), st.binary(min_size=1, max_size=300), st.integers(0, 5000))
def test_an_insertion_changes_a_few_chunks(place: int, inserted: bytes, removed: int) -> None:
    before = _digests_of_the_data()
    changed = DATA[:place] + inserted + DATA[place + removed :]
    new = [chunk for chunk in _chunks(changed) if sha256_of(chunk) not in before]
    # It takes as many chunks until a place is found that is a cut in both; eight in a row are far beyond the usual 1-2.
    assert len(new) <= 8
    assert len(before) > 30


def test_a_tensor_that_begins_elsewhere_has_the_same_chunks() -> None:
    tensor, head = DATA[: 500 * KIB], DATA[1000 * KIB : 1000 * KIB + 77]
    alone = _chunks(tensor)
    assert _chunks(head + tensor, (len(head),)) == [head, *alone]
    # Also where the content gives no place to meet again.
    assert _chunks(head + EVEN, (len(head),))[1:] == _chunks(EVEN)


def test_the_gear_table_is_the_documented_one() -> None:
    # SHA-256 of one zero byte begins with 6e340b9c (FIPS 180-4).
    assert int(GEAR[0]) == 0x6E340B9C
    assert all(int(GEAR[value]) == int(sha256_of(bytes([value]))[:8], 16) for value in range(256))


@pytest.mark.parametrize("size", [0, 1, MIN_BYTES - 1, MIN_BYTES, 3 * MAX_BYTES + 5])
def test_chunks_are_the_file(tmp_path: Path, size: int) -> None:
    data = DATA[:size]
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sha256_of_file(path) == sha256_of(data) == sha256_of(memoryview(data))

    chunked = cut(path, sha256_of(data), (size // 2,))
    assert chunked.size_bytes == size
    offset = 0
    for chunk in chunked.chunks:
        assert chunk.sha256 == sha256_of(data[offset : offset + chunk.size_bytes])
        offset += chunk.size_bytes
    assert offset == size
    assert ChunkIndex(files=(chunked,)).find(sha256_of(data)) == chunked
    assert ChunkIndex(files=(chunked,)).find(sha256_of(b"other")) is None
