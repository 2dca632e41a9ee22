"""Asking for blocks of a file, following a stream of them that many devices share, and being refused.

A file of the repository is addressed by its SHA-256 and travels in blocks of one size, numbered from zero over the
whole file. A block's topic says which bytes it holds, and whether they are packed (see `topics` and `packing`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from autoglm_edge_protocol import strict_base64
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.digests import Sha256
from autoglm_edge_protocol.documents import Count, Document
from autoglm_edge_protocol.limits import LIMITS


class FetchRequest(Document):
    """A device asks for some blocks of one file."""

    kind: ClassVar[str] = "fetch request"

    request_id: Count
    sha256: Sha256
    block_bytes: int = Field(ge=512, le=LIMITS.block_bytes)
    ranges: tuple[tuple[int, int], ...] = Field(min_length=1, max_length=LIMITS.request_blocks)
    """(first block, number of blocks)."""
    encodings: tuple[str, ...] = Field(default=(), max_length=8)
    """How a block may be packed: names of `packing`; unknown ones are ignored, and raw blocks are always understood."""
    follow: str | None = Field(default=None, max_length=LIMITS.bitmap_base64_bytes)
    """All blocks that the device lacks, as `to_bitmap` writes them: it listens to the file's shared topic too, and if
    the fleet streams the file there, what is asked for here need not be sent a second time."""

    @field_validator("follow")
    @classmethod
    def _is_bitmap(cls, value: str | None) -> str | None:
        if value is not None:
            _bits(value)
        return value

    @model_validator(mode="after")
    def _bounded(self) -> FetchRequest:
        if any(first < 0 or count < 1 for first, count in self.ranges):
            raise ValueError("a range starts below zero or is empty")
        if any(first * self.block_bytes > LIMITS.bundle_bytes for first, _ in self.ranges):
            raise ValueError("a range starts after the end of the largest file")
        if sum(count for _, count in self.ranges) > LIMITS.request_blocks:
            raise ValueError(f"more than {LIMITS.request_blocks} blocks in one request")
        return self

    def blocks(self) -> list[int]:
        """Return the numbers of the blocks asked for."""
        return [block for first, count in self.ranges for block in range(first, first + count)]


class StreamCredit(Document):
    """How far a device has followed a stream: what it says paces the sender, and acknowledges nothing."""

    kind: ClassVar[str] = "stream credit"

    sha256: Sha256
    block_bytes: int = Field(ge=512, le=LIMITS.block_bytes)
    block: Count
    """The number of the newest block that has come."""


class FetchRefusal(Document):
    """The fleet cannot send what was asked for."""

    kind: ClassVar[str] = "fetch refusal"

    request_id: Count
    sha256: Sha256
    reason: Reason
    """`not-found`: no published bundle has this file. `out-of-range`: the file is shorter. `block-too-large`: the
    fleet's broker does not carry blocks of that size."""
    block_bytes: int | None = Field(default=None, ge=512, le=LIMITS.block_bytes)
    """With `block-too-large`: the largest that it carries."""


def to_ranges(blocks: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return numbers, of blocks or of chunks, as (first, count) ranges, in order."""
    ranges: list[tuple[int, int]] = []
    for block in sorted(set(blocks)):
        if ranges and sum(ranges[-1]) == block:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((block, 1))
    return tuple(ranges)


def to_bitmap(blocks: Iterable[int]) -> str:
    """Return a set of block numbers in Base64: block n is bit n % 8, from the least, of byte n // 8."""
    bits = bytearray()
    for block in sorted(blocks, reverse=True):
        if not bits:
            bits = bytearray(block // 8 + 1)
        bits[block // 8] |= 1 << block % 8
    return base64.b64encode(bits).decode()


def from_bitmap(text: str) -> set[int]:
    """Return the block numbers. Raises ValueError when this is not Base64."""
    return {8 * number + bit for number, byte in enumerate(_bits(text)) if byte for bit in range(8) if byte >> bit & 1}


def _bits(text: str) -> bytes:
    try:
        return strict_base64.decode(text)
    except ValueError as error:
        raise ValueError(f"a bitmap is Base64: {error}") from None
