"""Where the tensors of an ONNX model lie: a walk over the wire format of protocol buffers, with onnx.proto's numbers.

Hostile input is expected: every length is checked against what contains it, nothing is read but headers, nesting costs
no stack, and a file of more fields than a model has is given up.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoglm_edge_protocol.tensor_places import REST, Data, TensorPlace

MAX_FIELDS = 2_000_000
"""Fields looked at, in one file. A graph of 10,000 nodes has about 200,000."""
_MAX_TEXT_BYTES = 4096

_GRAPH, _NODE, _ATTRIBUTE, _TENSOR = "GraphProto", "NodeProto", "AttributeProto", "TensorProto"
_MODEL = "ModelProto"
_INNER = {
    (_MODEL, 7): _GRAPH,
    (_GRAPH, 1): _NODE,
    (_GRAPH, 5): _TENSOR,  # initializer
    (_NODE, 5): _ATTRIBUTE,
    (_ATTRIBUTE, 5): _TENSOR,  # of a Constant
    (_ATTRIBUTE, 6): _GRAPH,  # the branches of If, the bodies of Loop and Scan
}
_BYTES = (9, 4, 5, 7, 10, 11)
"""raw_data; float_data, int32_data, int64_data, double_data, uint64_data."""
_EXTERNAL_DATA = 13

_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire types, and the sizes in bytes of those that have one."""


def find(data: Data) -> list[TensorPlace]:
    """Return where the tensors are, initializers and constants. Raises ValueError when this is no ONNX model."""
    wire = _Wire(data)
    places: list[TensorPlace] = []
    waiting = [(_MODEL, 0, len(data))]
    while waiting:
        kind, start, end = waiting.pop()
        external: dict[str, str] = {}
        for number, begin, stop in wire.messages(start, end):
            inner = _INNER.get((kind, number))
            if inner is not None:
                waiting.append((inner, begin, stop))
            elif kind == _TENSOR and number in _BYTES:
                places.append(TensorPlace(None, begin, stop - begin))
            elif kind == _TENSOR and number == _EXTERNAL_DATA:
                external.update([_entry(wire, begin, stop)])
        if place := _external(external):
            places.append(place)
    return places


def _external(entries: dict[str, str]) -> TensorPlace | None:
    if not entries.get("location"):
        return None
    offset, size_bytes = int(entries.get("offset") or 0), int(entries.get("length") or REST)
    return TensorPlace(entries["location"], offset, size_bytes)


def _entry(wire: _Wire, start: int, end: int) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto."""
    texts = {1: "", 2: ""}
    for number, begin, stop in wire.messages(start, end):
        if number in texts and stop - begin <= _MAX_TEXT_BYTES:
            texts[number] = wire.data[begin:stop].decode("utf-8", "replace")
    return texts[1], texts[2]


class _Wire:
    """The fields of messages, up to a number of them."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self._looked_at = 0

    def messages(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, start and end of each field that has a length. Raises ValueError."""
        at = start
        while at < end:
            self._looked_at += 1
            if self._looked_at > MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if wire == _LENGTH:
                size, at = self._varint(at, end)
            elif wire == _VARINT:
                size = self._varint(at, end)[1] - at
            elif wire in _FIXED:
                size = _FIXED[wire]
            else:
                raise ValueError(f"wire type {wire} at {at}")
            if number == 0 or at + size > end:
                raise ValueError(f"a field at {at} reaches over its message")
            if wire == _LENGTH:
                yield number, at, at + size
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
        raise ValueError(f"no number at {at}")
