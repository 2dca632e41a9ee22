from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.example_documents import DIGEST

from autoglm_edge_protocol.chunks import CUT_BYTES, ChunkedFile, ChunkIndex, cut
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.transfer import FetchRequest, to_ranges


@given(st.lists(st.integers(0, 200), max_size=64))
def test_ranges_name_exactly_the_blocks_in_order(blocks: list[int]) -> None:
    ranges = to_ranges(blocks)
    assert [b for first, count in ranges for b in range(first, first + count)] == sorted(set(blocks))
    assert all(ends + starts < following for (ends, starts), (following, _) in pairwise(ranges))


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=LIMITS.request_blocks))
def test_any_full_request_is_within_the_limits(blocks: set[int]) -> None:
    request = FetchRequest(request_id=0, sha256=DIGEST, block_bytes=LIMITS.block_bytes, ranges=to_ranges(blocks))
    assert request.blocks() == sorted(blocks)
    assert len(request.to_bytes()) < LIMITS.control_bytes


@pytest.mark.parametrize("size", [0, 1, CUT_BYTES - 1, CUT_BYTES, CUT_BYTES + 1, 3 * CUT_BYTES + 5])
def test_chunks_are_the_file(tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sha256_of_file(path) == sha256_of(data) == sha256_of(memoryview(data))

    chunked = cut(path, sha256_of(data))
    assert chunked.size_bytes == size
    offset = 0
    for chunk in chunked.chunks:
        assert chunk.sha256 == sha256_of(data[offset : offset + chunk.size_bytes])
        offset += chunk.size_bytes
    assert offset == size
    assert ChunkIndex(files=(chunked,)).find(sha256_of(data)) == chunked
    assert ChunkIndex(files=(chunked,)).find(sha256_of(b"other")) is None


@pytest.mark.parametrize("size", [0, 1, LIMITS.manifest_bytes, LIMITS.chunk_index_bytes])
def test_what_comes_before_the_index_is_a_single_chunk(size: int) -> None:
    whole = ChunkedFile.whole(DIGEST, size)
    assert sum(chunk.size_bytes for chunk in whole.chunks) == size
    assert len(whole.chunks) == (1 if size else 0)
