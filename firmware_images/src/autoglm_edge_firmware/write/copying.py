"""Write an image to one card and read all of it back.

The first piece, with the partition table, is written last: a card that was pulled out before its end holds no table,
and so does not pass for a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import IO

from autoglm_edge_firmware.errors import CardRefused, ImageUnusable, ProgramFailed
from autoglm_edge_firmware.media import block_map, compression, partitions
from autoglm_edge_firmware.media.block_map import BlockMap, Span
from autoglm_edge_firmware.programs import path_of, run
from autoglm_edge_firmware.progress import Progress, silent
from autoglm_edge_firmware.write.card import Card, refused

_PIECE_BYTES = 1 << 20
_UNKNOWN_BYTES = 1 << 46


@dataclass(frozen=True)
class Source:
    """An image to write. `image_bytes` is None where only reading all of it would tell."""

    path: Path
    image_bytes: int | None
    map: BlockMap | None

    @property
    def written_bytes(self) -> int:
        """How much goes to a card; 0 where it is not known."""
        return self.map.mapped_bytes if self.map else self.image_bytes or 0


def open_source(path: Path, map_path: Path | None = None) -> Source:
    """Look at an image, and at its map where there is one beside it.

    Raises:
        ImageUnusable: it is no image, is cut short, or the map is not its own.
    """
    kind = compression.kind_of(path)
    size = {"plain": lambda: path.stat().st_size, "xz": lambda: _size_of_xz(path)}.get(kind, lambda: None)()
    with compression.opened(path) as stream:
        head = stream.read(partitions.TABLE_BYTES)
    try:
        table = partitions.parse(head)
    except partitions.NoTable as error:
        raise ImageUnusable(path, str(error)) from None
    end = max(each.end_bytes for each in table.partitions)
    if size is not None and size < end:
        raise ImageUnusable(path, f"cut short: {size} bytes, but its partitions end at {end}; fetch or copy it again")
    found = _map(path, map_path)
    if found and size is not None and found.image_bytes != size:
        raise ImageUnusable(path, f"its block map is for an image of {found.image_bytes} bytes, it has {size}")
    return Source(path, found.image_bytes if found else size, found)


def _map(image: Path, given: Path | None) -> BlockMap | None:
    at = given or block_map.beside(image)
    if given is None and not at.exists():
        return None
    try:
        return block_map.parse(at.read_text(errors="replace"))
    except block_map.MalformedMap as error:
        raise ImageUnusable(at, str(error)) from None


def _size_of_xz(path: Path) -> int:
    path_of("xz")
    # The index at the archive's end tells, and an archive that was cut short has none.
    try:
        listed = run("xz", "--robot", "--list", "--", path).decode()
    except ProgramFailed as error:
        raise ImageUnusable(path, f"damaged or cut short ({error.problem}): fetch or make it again") from None
    totals = next(line.split("\t") for line in listed.splitlines() if line.startswith("totals"))
    return int(totals[4])


def write(source: Source, card: Card, at: Path, progress: Progress = silent) -> int:
    """Write an image to a card, verify it, and return how many bytes were written.

    Raises:
        ImageUnusable: the image is damaged; the card then has no partition table.
        CardRefused: the card is too small, was pulled out, or does not keep what was written.
    """
    total = source.written_bytes
    if source.image_bytes is not None and source.image_bytes > card.size_bytes:
        raise CardRefused(at, f"too small: {card.size_bytes} bytes, and the image needs {source.image_bytes}")
    try:
        written = _written(source, card, at, total, progress)
        card.settle()
        _verify(written, card, at, progress)
    except OSError as error:
        raise refused(at, error) from None
    return sum(span.size_bytes for span in written)


def _written(source: Source, card: Card, at: Path, total: int, progress: Progress) -> list[Span]:
    card.write_at(0, bytes(partitions.SECTOR_BYTES))
    first = b""
    spans: list[Span] = []
    with compression.opened(source.path) as stream:
        position = done = 0
        for span in _spans(source):
            position = _skip(stream, position, span.start_bytes)
            digest = sha256()
            size = 0
            for piece in _pieces(stream, span.size_bytes):
                if position == 0:
                    first = piece
                elif position + len(piece) > card.size_bytes:
                    raise CardRefused(at, f"too small: it has {card.size_bytes} bytes, and the image has more")
                else:
                    card.write_at(position, piece)
                digest.update(piece)
                position, size, done = position + len(piece), size + len(piece), done + len(piece)
                progress("writing", done, total)
            if span.sha256 and (size != span.size_bytes or digest.hexdigest() != span.sha256):
                raise ImageUnusable(
                    source.path, "damaged, or its block map is of another image: fetch or make both again"
                )
            if size == 0:
                break
            spans.append(replace(span, size_bytes=size, sha256=digest.hexdigest()))
    card.settle()
    card.write_at(0, first)
    return spans


def _spans(source: Source) -> Iterable[Span]:
    return source.map.spans if source.map else block_map.whole(source.image_bytes or _UNKNOWN_BYTES)


def _skip(stream: IO[bytes], position: int, target: int) -> int:
    while position < target:
        piece = stream.read(min(_PIECE_BYTES, target - position))
        if not piece:
            break
        position += len(piece)
    return position


def _pieces(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (piece := stream.read(min(_PIECE_BYTES, size))):
        yield piece
        size -= len(piece)


def _verify(spans: list[Span], card: Card, at: Path, progress: Progress) -> None:
    total, done = sum(span.size_bytes for span in spans), 0
    for span in spans:
        digest = sha256()
        position = span.start_bytes
        while position < span.end_bytes:
            piece = card.read_at(position, min(_PIECE_BYTES, span.end_bytes - position))
            if not piece:
                break
            digest.update(piece)
            position += len(piece)
            done += len(piece)
            progress("reading back", done, total)
        if digest.hexdigest() != span.sha256:
            card.write_at(0, bytes(partitions.SECTOR_BYTES))
            raise CardRefused(
                at,
                f"does not keep what is written (from byte {span.start_bytes}): the card is broken, or smaller than it "
                "says; use another",
            )
