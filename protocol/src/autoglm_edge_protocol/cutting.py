"""Cuts a file into chunks where its content says so (FastCDC: Xia et al., USENIX ATC 2016) and where its tensors begin.

The same bytes are cut alike wherever in a file they stand, so that an insertion changes the chunks around it and no
others. The rule is written down in docs/protocol.md; nobody who reads chunks relies on it. One of the few modules here
that need numpy; a process that must stay light does not import it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoglm_edge_protocol.chunks import Chunk, ChunkedFile
from autoglm_edge_protocol.digests import sha256_of

MIN_BYTES = 16 * 1024
NORMAL_BYTES = 64 * 1024
"""Up to this size a cut is four times as rare as one every `NORMAL_BYTES`, beyond it four times as frequent."""
MAX_BYTES = 256 * 1024

_STRICT_BITS = 18
_LOOSE_BITS = 14
WINDOW_BYTES = 32
"""The hash of a place depends on so many bytes before it. Less than `MIN_BYTES`: it never reaches over a cut."""
_PIECE_BYTES = 256 * 1024

Places = npt.NDArray[np.int64]
_NONE: Places = np.empty(0, np.int64)

GEAR: npt.NDArray[np.uint32] = np.array(
    [int.from_bytes(hashlib.sha256(bytes([value])).digest()[:4], "big") for value in range(256)], np.uint32
)
"""A random number for each byte: the first four bytes, big-endian, of the SHA-256 of that byte."""


def cut(path: Path, sha256: str, starts: Sequence[int] = ()) -> ChunkedFile:
    """Return the chunks of the file at `path`, whose digest is already known. Raises OSError.

    Args:
        path: the file.
        sha256: its digest.
        starts: offsets in bytes at which a chunk is to begin, whatever the content says; those outside don't count.
    """
    with path.open("rb") as file:
        ends = list(cut_points(iter(lambda: file.read(_PIECE_BYTES), b""), starts))
        file.seek(0)
        chunks: list[Chunk] = []
        begin = 0
        for end in ends:
            chunks.append(Chunk(size_bytes=end - begin, sha256=sha256_of(file.read(end - begin))))
            begin = end
    return ChunkedFile(sha256=sha256, size_bytes=begin, chunks=tuple(chunks))


def cut_points(pieces: Iterable[bytes], starts: Sequence[int] = ()) -> Iterator[int]:
    """Yield where each chunk of the concatenated pieces ends; how it is in pieces makes no difference.

    Holds one piece and what may still be cut of the largest chunk.
    """
    stops = sorted({start for start in starts if start > 0})
    begin = seen = 0
    loose = strict = _NONE
    before = b""
    for piece in pieces:
        hashes = _hashes(before + piece)[len(before) :]
        found = np.flatnonzero(hashes < 1 << (32 - _LOOSE_BITS))
        loose = np.concatenate((loose, found + seen + 1))
        strict = np.concatenate((strict, found[hashes[found] < 1 << (32 - _STRICT_BITS)] + seen + 1))
        seen += len(piece)
        before = (before + piece)[1 - WINDOW_BYTES :]
        while (limit := _limit(begin, stops)) <= seen:
            begin = _next_cut(begin, limit, loose, strict)
            yield begin
        loose, strict = (places[np.searchsorted(places, begin, "right") :] for places in (loose, strict))
    while begin < seen:
        begin = _next_cut(begin, min(seen, _limit(begin, stops)), loose, strict)
        yield begin


def _limit(begin: int, stops: Sequence[int]) -> int:
    """Return where the chunk from `begin` ends at the latest."""
    following = bisect_right(stops, begin)
    return min((begin + MAX_BYTES, *stops[following : following + 1]))


def _next_cut(begin: int, limit: int, loose: Places, strict: Places) -> int:
    normal = min(begin + NORMAL_BYTES, limit)
    for places, least, most in ((strict, begin + MIN_BYTES, normal), (loose, normal, limit)):
        index = int(np.searchsorted(places, least))
        if index < len(places) and places[index] < most:
            return int(places[index])
    return limit


def _hashes(data: bytes) -> npt.NDArray[np.uint32]:
    """Return the gear hash up to each byte: the sum of GEAR[b] << n over the byte, the one before it, and so on.

    By doubling the length that is summed up: H_2k[i] = H_k[i] + (H_k[i - k] << k).
    """
    hashes = GEAR[np.frombuffer(data, np.uint8)]
    length = 1
    while length < WINDOW_BYTES:
        hashes[length:] += hashes[:-length] << np.uint32(length)
        length *= 2
    return hashes
