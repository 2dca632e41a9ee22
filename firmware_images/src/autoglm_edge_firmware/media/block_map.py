"""Block maps (`.bmap` 2.0, as bmaptool reads them): which blocks of an image must be written, and their digests.

A block that is not in the map may hold anything on the card: it is free in its file system. A block of zeros that is in
use is in the map.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

BLOCK_BYTES = 4096
_PIECE_BYTES = 1 << 20
_NONE = "0" * 64
_RANGE = re.compile(r'<Range(?: chksum="([0-9a-f]{64})")?>\s*(\d+)(?:-(\d+))?\s*</Range>')
_CHECKSUM = re.compile(r"<BmapFileChecksum>\s*([0-9a-f]{64})\s*</BmapFileChecksum>")


@dataclass(frozen=True)
class Span:
    """Bytes that must be written, and their SHA-256 where it is known."""

    start_bytes: int
    size_bytes: int
    sha256: str = ""

    @property
    def end_bytes(self) -> int:
        """The first byte after it."""
        return self.start_bytes + self.size_bytes


@dataclass(frozen=True)
class BlockMap:
    """The spans of an image, in order."""

    image_bytes: int
    spans: tuple[Span, ...]

    @property
    def mapped_bytes(self) -> int:
        """How much must be written."""
        return sum(span.size_bytes for span in self.spans)


class MalformedMap(ValueError):
    """Not a block map, or a damaged one."""


def whole(image_bytes: int, span_bytes: int = 1 << 26) -> Iterator[Span]:
    """Give spans that cover an image of which there is no map."""
    for start in range(0, image_bytes, span_bytes):
        yield Span(start, min(span_bytes, image_bytes - start))


def aligned(ranges: Iterable[tuple[int, int]], image_bytes: int) -> list[tuple[int, int]]:
    """Return ranges of bytes (first, after the last) widened to blocks, in order, and joined where they meet."""
    found: list[tuple[int, int]] = []
    for first, after in sorted(ranges):
        start = first // BLOCK_BYTES * BLOCK_BYTES
        end = min(-(-after // BLOCK_BYTES) * BLOCK_BYTES, image_bytes)
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def measure(image: Path, ranges: Iterable[tuple[int, int]]) -> BlockMap:
    """Return the map of an image of which these ranges of bytes are in use."""
    image_bytes = image.stat().st_size
    with image.open("rb") as file:
        spans = []
        for start, end in aligned(ranges, image_bytes):
            digest = sha256()
            file.seek(start)
            for at in range(start, end, _PIECE_BYTES):
                digest.update(file.read(min(_PIECE_BYTES, end - at)))
            spans.append(Span(start, end - start, digest.hexdigest()))
    return BlockMap(image_bytes, tuple(spans))


def to_text(block_map: BlockMap) -> str:
    """Return the file of a map."""
    blocks = -(-block_map.image_bytes // BLOCK_BYTES)
    mapped = sum(-(-span.size_bytes // BLOCK_BYTES) for span in block_map.spans)
    lines = [
        '<?xml version="1.0" ?>',
        '<bmap version="2.0">',
        f"    <ImageSize> {block_map.image_bytes} </ImageSize>",
        f"    <BlockSize> {BLOCK_BYTES} </BlockSize>",
        f"    <BlocksCount> {blocks} </BlocksCount>",
        f"    <MappedBlocksCount> {mapped} </MappedBlocksCount>",
        "    <ChecksumType> sha256 </ChecksumType>",
        f"    <BmapFileChecksum> {_NONE} </BmapFileChecksum>",
        "    <BlockMap>",
        *(f'        <Range chksum="{span.sha256}"> {_blocks(span)} </Range>' for span in block_map.spans),
        "    </BlockMap>",
        "</bmap>",
        "",
    ]
    text = "\n".join(lines)
    # Of the file with zeros in this place, as the format says.
    return text.replace(_NONE, sha256(text.encode()).hexdigest(), 1)


def _blocks(span: Span) -> str:
    first = span.start_bytes // BLOCK_BYTES
    last = -(-span.end_bytes // BLOCK_BYTES) - 1
    return str(first) if first == last else f"{first}-{last}"


def parse(text: str) -> BlockMap:
    """Read a map.

    Raises:
        MalformedMap: it is none, of another version, or was changed since it was made.
    """
    if '<bmap version="2.' not in text:
        raise MalformedMap("not a block map of version 2")
    stated = _CHECKSUM.search(text)
    if stated and sha256(text.replace(stated[1], _NONE, 1).encode()).hexdigest() != stated[1]:
        raise MalformedMap("damaged: its own checksum is another")
    image_bytes, block_bytes = _number(text, "ImageSize"), _number(text, "BlockSize")
    spans: list[Span] = []
    for digest, first, last in _RANGE.findall(text):
        start = int(first) * block_bytes
        end = min((int(last or first) + 1) * block_bytes, image_bytes)
        if end <= start or (spans and start < spans[-1].end_bytes):
            raise MalformedMap(f"its range {first}-{last} is out of order")
        spans.append(Span(start, end - start, digest))
    if not spans:
        raise MalformedMap("it has no range")
    return BlockMap(image_bytes, tuple(spans))


def _number(text: str, name: str) -> int:
    found = re.search(rf"<{name}>\s*(\d{{1,15}})\s*</{name}>", text)
    if found is None or int(found[1]) == 0:
        raise MalformedMap(f"it has no {name}")
    return int(found[1])


def beside(image: Path) -> Path:
    """Return where the map of an image lies: `card.img.bmap`, also for `card.img.xz`."""
    plain = image.with_suffix("") if image.suffix in (".xz", ".zst", ".gz") else image
    return plain.with_name(plain.name + ".bmap")
