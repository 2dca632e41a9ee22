"""Where the tensors of a TFLite model lie: Model.buffers of its flatbuffer, inside it or, in large models, behind it.

Hostile input is expected: every position is checked against the file's size, and nothing is read but offsets.
"""

from __future__ import annotations

import struct

from autoglm_edge_protocol.tensor_places import Data, TensorPlace

_MAX_BUFFERS = 1_000_000
_MODEL_BUFFERS = 4
_DATA, _OFFSET, _SIZE = 0, 1, 2
"""Fields of the tables Model and Buffer, in the order of TensorFlow's schema.fbs."""


def find(data: Data) -> list[TensorPlace]:
    """Return where the buffers are. Raises ValueError when this is no TFLite model."""
    if data[4:8] != b"TFL3":
        raise ValueError("no TFLite model")
    buffers = _field(data, _u32(data, 0), _MODEL_BUFFERS)
    if buffers is None:
        return []
    vector = buffers + _u32(data, buffers)
    count = _u32(data, vector)
    if count > _MAX_BUFFERS:
        raise ValueError(f"{count} buffers")
    places: list[TensorPlace] = []
    for number in range(count):
        element = vector + 4 + 4 * number
        place = _buffer(data, element + _u32(data, element))
        if place is not None:
            places.append(place)
    return places


def _buffer(data: Data, table: int) -> TensorPlace | None:
    inside = _field(data, table, _DATA)
    if inside is not None:
        vector = inside + _u32(data, inside)
        place = TensorPlace(None, vector + 4, _u32(data, vector))
    else:
        offset, size = _field(data, table, _OFFSET), _field(data, table, _SIZE)
        if offset is None or size is None:
            return None
        place = TensorPlace(None, _u64(data, offset), _u64(data, size))
    if place.offset + place.size_bytes > len(data):
        raise ValueError(f"a buffer at {place.offset} reaches over the end")
    return place


def _field(data: Data, table: int, number: int) -> int | None:
    """Return the position of a table's field, None where it has its default."""
    virtual = table - int.from_bytes(_bytes(data, table, 4), "little", signed=True)
    place = 4 + 2 * number
    if place + 2 > _u16(data, virtual):
        return None
    offset = _u16(data, virtual + place)
    return table + offset if offset else None


def _u16(data: Data, at: int) -> int:
    return int(struct.unpack("<H", _bytes(data, at, 2))[0])


def _u32(data: Data, at: int) -> int:
    return int(struct.unpack("<I", _bytes(data, at, 4))[0])


def _u64(data: Data, at: int) -> int:
    return int(struct.unpack("<Q", _bytes(data, at, 8))[0])


def _bytes(data: Data, at: int, size: int) -> bytes:
    if at < 0 or at + size > len(data):
        raise ValueError(f"nothing at {at}")
    return data[at : at + size]
