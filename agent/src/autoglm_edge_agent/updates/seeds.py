"""Which chunks of a file that is to be fetched lie on this disk already, and where. Pure; `seeding` copies them.

Nothing is assumed of how files were cut: what counts is that two chunks have the same size and digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autoglm_edge_protocol.chunks import Chunk, ChunkedFile


@dataclass(frozen=True)
class Place:
    """Where a chunk is said to lie."""

    object_sha256: str
    offset: int


@dataclass(frozen=True)
class Seed:
    """A chunk to be copied."""

    number: int
    """Which chunk of the file it is."""
    chunk: Chunk
    offset: int
    """Where it belongs."""
    place: Place


Places = Mapping[Chunk, Place]
NOWHERE: Places = MappingProxyType({})


def locate(wanted: Iterable[ChunkedFile], here: Iterable[ChunkedFile]) -> dict[Chunk, Place]:
    """Return where chunks of the wanted files lie in the files that are here; the first place of each.

    Args:
        wanted: files that are not here. What is returned is at most as many as their chunks.
        here: files that are, looked at one after another.
    """
    missing = {chunk for file in wanted for chunk in file.chunks}
    found: dict[Chunk, Place] = {}
    for file in here:
        for offset, chunk in zip(file.starts(), file.chunks, strict=False):
            if chunk in missing:
                found.setdefault(chunk, Place(file.sha256, offset))
    return found


def find_seeds(file: ChunkedFile, verified: Collection[int], places: Places) -> list[Seed]:
    """Return what can be copied of a file of which some chunks are in place, ordered by where it comes from."""
    seeds = [
        Seed(number, chunk, offset, places[chunk])
        for number, (offset, chunk) in enumerate(zip(file.starts(), file.chunks, strict=False))
        if number not in verified and chunk in places
    ]
    return sorted(seeds, key=lambda seed: (seed.place.object_sha256, seed.place.offset))
