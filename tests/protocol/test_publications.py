"""Publications are found in what a broker sends, however it is cut; everything else is given on, byte for byte."""

from __future__ import annotations

import random

import pytest

from autoglm_edge_protocol.publications import Next, Publication, PublicationReader, head

BUFFER_BYTES = 1000


def packet(kind: int, body: bytes) -> bytes:
    length, remaining = b"", len(body)
    while True:
        remaining, byte = remaining >> 7, remaining & 0x7F
        length += bytes([byte | (0x80 if remaining else 0)])
        if not remaining:
            return bytes([kind]) + length + body


def publish(topic: bytes, payload: bytes, kind: int = 0x30, mid: bytes = b"") -> bytes:
    return packet(kind, len(topic).to_bytes(2, "big") + topic + mid + payload)


def read(data: bytes, cuts: random.Random) -> list[Publication | bytes]:
    """Return publications, and joined what lies between them."""
    reader = PublicationReader(BUFFER_BYTES)
    found: list[Publication | bytes] = []
    while data:
        free = reader.free()
        count = min(len(free), len(data), cuts.choice((1, 2, 3, 50, 700, 1000)))
        free[:count] = data[:count]
        reader.filled(count)
        data = data[count:]
        while (one := reader.next()) is not Next.NOTHING:
            if isinstance(one, Publication):
                found.append(one)
                continue
            taken = reader.take(cuts.choice((1, 5, 10_000)))
            assert taken
            if found and isinstance(before := found[-1], bytes):
                found[-1] = before + taken
            else:
                found.append(taken)
    return found


CONNACK, PINGRESP = packet(0x20, b"\x00\x00"), packet(0xD0, b"")
STREAM: list[tuple[bytes, Publication | None]] = [
    (CONNACK, None),
    (publish(b"a/b", b"raw"), Publication(b"a/b", b"raw", False)),
    (publish(b"t", b"", 0x31), Publication(b"t", b"", True)),
    (publish(b"t", bytes(range(256)) * 3), Publication(b"t", bytes(range(256)) * 3, False)),
    (publish(b"t", b"acknowledged", 0x32, b"\x00\x07"), None),
    (publish(b"t", b"x" * 985), Publication(b"t", b"x" * 985, False)),
    (PINGRESP, None),
    (publish(b"t", bytes(BUFFER_BYTES)), None),
    (publish(b"t", b"after a long one"), Publication(b"t", b"after a long one", False)),
]


@pytest.mark.parametrize("seed", range(20))
def test_publications_are_found_and_the_rest_is_left_as_it_is(seed: int) -> None:
    expected: list[Publication | bytes] = []
    for raw, publication in STREAM:
        if publication is None and expected and isinstance(before := expected[-1], bytes):
            expected[-1] = before + raw
        else:
            expected.append(publication or raw)
    assert read(b"".join(raw for raw, _ in STREAM), random.Random(seed)) == expected


MALFORMED = {
    "no topic": packet(0x30, b"\x00\x00payload"),
    "a topic longer than the packet": packet(0x30, b"\x00\x09abc"),
    "no length of a topic": packet(0x30, b"\x00"),
    "nothing": packet(0x30, b""),
    "a repeated one at QoS 0": publish(b"t", b"x", 0x38),
    "QoS 3": publish(b"t", b"x", 0x36),
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_well_formed_is_left_to_who_knows_more(data: bytes) -> None:
    assert read(data, random.Random(0)) == [data]


def test_another_connection_begins_with_nothing_of_the_last_one() -> None:
    reader = PublicationReader(BUFFER_BYTES)
    half = publish(b"t", b"cut off")[:-3]
    reader.free()[: len(half)] = half
    reader.filled(len(half))
    assert reader.next() is Next.NOTHING
    reader.clear()
    reader.free()[: len(CONNACK)] = CONNACK
    reader.filled(len(CONNACK))
    assert reader.next() is Next.OTHER
    assert reader.take(10) == CONNACK
    assert reader.take(10) == b""


@pytest.mark.parametrize("size_bytes", [0, 1, 120, 121, 16_000, 16_384, 65_536, 2_097_200])
def test_what_is_written_is_what_is_read(size_bytes: int) -> None:
    payload = bytes(size_bytes)
    assert head("a/b", size_bytes) + payload == publish(b"a/b", payload)


@pytest.mark.parametrize(("topic", "size_bytes"), [("", 1), ("t" * 65_536, 1), ("t", 1 << 28)])
def test_what_no_packet_can_be(topic: str, size_bytes: int) -> None:
    with pytest.raises(ValueError, match="no publication"):
        head(topic, size_bytes)
