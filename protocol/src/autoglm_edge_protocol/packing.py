"""Packing blocks for the wire, where that makes them smaller: each by itself, so that any of them can be unpacked.

Zstandard (RFC 8878) is the one encoding today. Its library is a compiled one that not every board has a wheel of: who
lacks it offers no encoding and gets raw blocks.
"""

from __future__ import annotations

import contextlib

from autoglm_edge_protocol.errors import MalformedDocument

with contextlib.suppress(ImportError):
    import zstandard

ZSTD = "zstd"
_LEVEL = 3
_WORTH = 0.95
"""A block that does not shrink below this share is not worth the device's time."""

ENCODINGS: tuple[str, ...] = (ZSTD,) if "zstandard" in globals() else ()
"""What can be packed and unpacked here."""


def pack(data: bytes) -> bytes | None:
    """Return the block as one Zstandard frame, None where that saves less than a twentieth."""
    if not ENCODINGS:
        return None
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data)
    return packed if len(packed) < _WORTH * len(data) else None


def unpack(packed: bytes, max_bytes: int) -> bytes:
    """Return the block. Raises MalformedDocument when it is no frame, or holds more than `max_bytes`."""
    if not ENCODINGS:
        raise MalformedDocument("block", "is packed, and nothing here can unpack it")
    try:
        # The size stands in the frame, in the sender's words: it is looked at before any memory is given.
        size_bytes = zstandard.frame_content_size(packed)
        if not 0 <= size_bytes <= max_bytes:
            raise MalformedDocument("block", f"says to hold {size_bytes} bytes, at most {max_bytes} are taken")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=max_bytes)
    except zstandard.ZstdError as error:
        raise MalformedDocument("block", f"cannot be unpacked: {error}") from None
