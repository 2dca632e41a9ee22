"""Which ranges are asked for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_agent.updates.runs import Run, missing_runs
from autoglm_edge_protocol.chunks import Chunk, ChunkedFile
from autoglm_edge_protocol.digests import sha256_of


def _file(sizes: list[int]) -> ChunkedFile:
    chunks = tuple(Chunk(size_bytes=size, sha256=sha256_of(b"")) for size in sizes)
    return ChunkedFile(sha256=sha256_of(b"file"), size_bytes=sum(sizes), chunks=chunks)


def test_missing_neighbours_are_one_run() -> None:
    file = _file([10, 20, 30, 40, 50])
    assert missing_runs(file, set()) == [Run(range(5), 0, 150)]
    assert missing_runs(file, {2}) == [Run(range(2), 0, 30), Run(range(3, 5), 60, 90)]
    assert missing_runs(file, {0, 4}) == [Run(range(1, 4), 10, 90)]
    assert missing_runs(file, set(range(5))) == []
    assert missing_runs(_file([]), set()) == []


@given(st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=30))
def test_the_runs_are_what_is_missing_and_cannot_be_fewer(chunks: list[tuple[int, bool]]) -> None:
    file, here = _file([size for size, _ in chunks]), {number for number, (_, is_here) in enumerate(chunks) if is_here}
    runs = missing_runs(file, here)
    assert [chunk for run in runs for chunk in run.chunks] == [n for n in range(len(chunks)) if n not in here]
    for run in runs:
        assert run.offset == sum(size for size, _ in chunks[: run.chunks.start])
        assert run.size_bytes == sum(chunks[number][0] for number in run.chunks) > 0
    assert all(one.chunks.stop < other.chunks.start for one, other in pairwise(runs))
