"""Writes a TFLite flatbuffer of nothing but buffers, inside it or behind it, with the schema's field numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_MODEL_FIELDS = 5


def flatbuffer(buffers: Sequence[bytes | None], behind: Sequence[bytes] = ()) -> bytes:
    """Return a model; each None among the buffers takes the next of those that lie behind the flatbuffer."""
    data = bytearray(struct.pack("<I4s", 0, b"TFL3"))
    virtual = len(data)
    data += struct.pack("<HH", 4 + 2 * _MODEL_FIELDS, 8) + struct.pack("<5H", 0, 0, 0, 0, 4) + bytes(2)
    table = len(data)
    struct.pack_into("<I", data, 0, table)
    data += struct.pack("<iI", table - virtual, 4)
    vector = len(data)
    data += struct.pack("<I", len(buffers)) + bytes(4 * len(buffers))
    outside: list[tuple[int, bytes]] = []
    left = list(behind)
    for number, content in enumerate(buffers):
        element = vector + 4 + 4 * number
        data += bytes(-len(data) % 8)
        if content is None:
            virtual = len(data)
            data += struct.pack("<5H", 10, 24, 0, 8, 16) + bytes(6)
            outside.append((len(data) + 8, left.pop(0)))
            fields = bytes(4) + bytes(16)
        else:
            virtual = len(data)
            data += struct.pack("<3H", 6, 8, 4) + bytes(2)
            fields = struct.pack("<II", 4, len(content)) + content
        struct.pack_into("<I", data, element, len(data) - element)
        data += struct.pack("<i", len(data) - virtual) + fields
    for position, content in outside:
        struct.pack_into("<QQ", data, position, len(data), len(content))
        data += content
    return bytes(data)
