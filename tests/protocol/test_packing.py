from __future__ import annotations

import contextlib
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.packing import ENCODINGS, ZSTD, pack, unpack

BLOCK = 65_536


def test_what_repeats_is_packed_and_unpacked() -> None:
    assert ENCODINGS == (ZSTD,)
    data = bytes(random.Random(1).choices(range(40), k=BLOCK))
    packed = pack(data)
    assert packed is not None
    assert len(packed) < 0.8 * BLOCK
    assert unpack(packed, BLOCK) == data


def test_noise_is_sent_as_it_is() -> None:
    assert pack(random.Random(2).randbytes(BLOCK)) is None


def test_a_bomb_is_not_blown_up() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(MalformedDocument, match="says to hold 50000000 bytes"):
        unpack(bomb, BLOCK)


def test_a_frame_that_hides_its_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
    with pytest.raises(MalformedDocument, match="says to hold -1 bytes"):
        unpack(frame, BLOCK)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_unpacked(data: bytes) -> None:
    try:
        assert len(unpack(data, BLOCK)) <= BLOCK
    except MalformedDocument as error:
        assert str(error).isprintable()


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_a_damaged_frame_is_refused_or_unpacked_within_bounds(data: bytes, draw: st.DataObject) -> None:
    frame = bytearray(zstandard.ZstdCompressor().compress(data))
    frame[draw.draw(st.integers(0, len(frame) - 1))] ^= draw.draw(st.integers(1, 255))
    with contextlib.suppress(MalformedDocument):
        assert len(unpack(bytes(frame), BLOCK)) <= BLOCK
