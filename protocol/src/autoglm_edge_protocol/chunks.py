"""The chunks that a file consists of, each addressed by its SHA-256.

The chunk index of a bundle (`chunks.json`) says for every file which chunks it consists of, in order. The cut is the
writer's choice (ours is in `cutting`), and readers must not assume one.
"""

from __future__ import annotations

from itertools import accumulate
from typing import ClassVar

from pydantic import Field, model_validator

from autoglm_edge_protocol.digests import Sha256
from autoglm_edge_protocol.documents import Document, Part
from autoglm_edge_protocol.limits import LIMITS


class Chunk(Part):
    """A piece of a file."""

    size_bytes: int = Field(ge=1, le=LIMITS.chunk_bytes)
    sha256: Sha256


class ChunkedFile(Part):
    """The chunks of one file, in order."""

    sha256: Sha256
    size_bytes: int = Field(ge=0, le=LIMITS.bundle_bytes)
    chunks: tuple[Chunk, ...]

    @model_validator(mode="after")
    def _sizes_add_up(self) -> ChunkedFile:
        if sum(chunk.size_bytes for chunk in self.chunks) != self.size_bytes:
            raise ValueError("the sizes of the chunks do not add up to the size of the file")
        return self

    def starts(self) -> list[int]:
        """Return where each chunk begins, in bytes, and at last where the file ends."""
        return [0, *accumulate(chunk.size_bytes for chunk in self.chunks)]

    @classmethod
    def whole(cls, sha256: str, size_bytes: int) -> ChunkedFile:
        """Treat a small file as a single chunk, for the files that are fetched before the index is known."""
        chunks = (Chunk(size_bytes=size_bytes, sha256=sha256),) if size_bytes else ()
        return cls(sha256=sha256, size_bytes=size_bytes, chunks=chunks)


class ChunkIndex(Document):
    """`chunks.json`: the chunks of every file of a bundle but the manifest and the index itself."""

    kind: ClassVar[str] = "chunk index"

    files: tuple[ChunkedFile, ...]

    def find(self, sha256: str) -> ChunkedFile | None:
        """Return the entry of the file with this digest."""
        return next((file for file in self.files if file.sha256 == sha256), None)
