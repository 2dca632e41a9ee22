"""Which ranges of a file to ask a source for: its missing chunks, joined where they lie side by side. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from autoglm_edge_protocol.chunks import ChunkedFile


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
    runs: list[Run] = []
    begun: int | None = None
    begin_bytes = offset = 0
    for number, chunk in enumerate(file.chunks):
        if number in here and begun is not None:
            runs.append(Run(range(begun, number), begin_bytes, offset - begin_bytes))
            begun = None
        elif number not in here and begun is None:
            begun, begin_bytes = number, offset
        offset += chunk.size_bytes
    if begun is not None:
        runs.append(Run(range(begun, len(file.chunks)), begin_bytes, offset - begin_bytes))
    return runs
