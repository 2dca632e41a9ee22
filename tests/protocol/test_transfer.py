from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.example_documents import DIGEST

from autoglm_edge_protocol.chunks import ChunkedFile
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


@pytest.mark.parametrize("size", [0, 1, LIMITS.manifest_bytes, LIMITS.chunk_index_bytes])
def test_what_comes_before_the_index_is_a_single_chunk(size: int) -> None:
    whole = ChunkedFile.whole(DIGEST, size)
    assert sum(chunk.size_bytes for chunk in whole.chunks) == size
    assert len(whole.chunks) == (1 if size else 0)
