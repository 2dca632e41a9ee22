"""Asking for blocks of a file, and being refused.

A file of the repository is addressed by its SHA-256 and travels in blocks of one size, numbered from zero over the
whole file. The block itself is raw: its topic says which bytes it holds (see `topics`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field, model_validator

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


class FetchRefusal(Document):
    """The fleet cannot send what was asked for."""

    kind: ClassVar[str] = "fetch refusal"

    request_id: Count
    sha256: Sha256
    reason: Reason
    """`not-found`: no published bundle has this file. `out-of-range`: the file is shorter."""


def to_ranges(blocks: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return block numbers as (first, count) ranges, in order."""
    ranges: list[tuple[int, int]] = []
    for block in sorted(set(blocks)):
        if ranges and sum(ranges[-1]) == block:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((block, 1))
    return tuple(ranges)
