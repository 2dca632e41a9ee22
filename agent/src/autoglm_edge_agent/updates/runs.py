"""Which ranges of a file to ask a source for: its missing chunks, joined where they lie side by side. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.transfer import to_ranges


@dataclass(frozen=True)
class Run:
    """Chunks that follow one another."""

    chunks: range
    offset: int
    """Where the first of them begins, in bytes."""
    size_bytes: int


def missing_runs(file: ChunkedFile, here: Collection[int]) -> list[Run]:
    """Return the chunks that are not here as the fewest runs, in the order of the file. None of them has a chunk of
    `here`, so that nothing is read twice.
    """
    starts = file.starts()
    joined = to_ranges(number for number in range(len(file.chunks)) if number not in here)
    ends = [(first, first + count) for first, count in joined]
    return [Run(range(first, end), starts[first], starts[end] - starts[first]) for first, end in ends]
