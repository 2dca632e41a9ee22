"""Publications at QoS 0 as bytes: how one begins, and finding them in what a broker sends. Pure.

What travels in bulk are publications at QoS 0, of which a packet has nothing but a topic and a payload. They are
taken out here, each with one copy of its bytes; every other packet, and whatever is not well-formed, is given on as it
came to who knows the rest of MQTT.

MQTT 3.1.1 (OASIS standard, 2014), sections 2.2 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

BUFFER_BYTES = 512 * 1024
"""Several blocks: the fewer reads, the less each byte costs. Longer packets pass through piece by piece."""
_PUBLISH, _QOS_BITS, _RETAIN_BIT = 0x30, 0x06, 0x01
_MOST_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Publication:
    """A publication at QoS 0."""

    topic: bytes
    payload: bytes
    retained: bool


class Next(Enum):
    """What comes next, where it is no publication."""

    NOTHING = "nothing"
    """Not before more bytes are here."""
    OTHER = "other"
    """Bytes of another packet, for `take`."""


def head(topic: str, payload_bytes: int) -> bytes:
    """Return what comes before the payload in a packet. Raises ValueError when there can be no such packet."""
    name = topic.encode()
    remaining = 2 + len(name) + payload_bytes
    if not 0 < len(name) < 1 << 16 or remaining >= 1 << 7 * _MOST_LENGTH_BYTES:
        raise ValueError(f"a topic of {len(name)} bytes and {payload_bytes} after it are no publication")
    begun = bytearray([_PUBLISH])
    while remaining >= 0x80:
        begun.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    begun.append(remaining)
    return bytes(begun) + len(name).to_bytes(2, "big") + name


class PublicationReader:
    """A buffer for what is received; use as: fill `free`, say `filled`, and ask `next` until it is `NOTHING`."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._bytes = memoryview(bytearray(buffer_bytes))
        self._begin = self._end = 0
        self._other_bytes = 0

    def clear(self) -> None:
        """Begin anew, with another connection."""
        self._begin = self._end = self._other_bytes = 0

    def free(self) -> memoryview:
        """Return where the next bytes go; never empty once `next` was `NOTHING`."""
        left = self._end - self._begin
        self._bytes[:left] = self._bytes[self._begin : self._end]
        self._begin, self._end = 0, left
        return self._bytes[left:]

    def filled(self, size_bytes: int) -> None:
        """Note that so many bytes were put there."""
        self._end += size_bytes

    def take(self, size_bytes: int) -> bytes:
        """Take bytes of the packet that is no publication: no more than are here, and than it has."""
        end = min(self._begin + min(size_bytes, self._other_bytes), self._end)
        taken = bytes(self._bytes[self._begin : end])
        self._begin = end
        self._other_bytes -= len(taken)
        return taken

    def next(self) -> Publication | Next:
        """Return what comes next, and take it if it is a publication."""
        if self._begin == self._end:
            return Next.NOTHING
        if self._other_bytes:
            return Next.OTHER
        length = self._length()
        if length is None:
            return Next.NOTHING
        body, remaining = length
        end = body + remaining
        found = None
        if self._bytes[self._begin] & ~_RETAIN_BIT == _PUBLISH and end - self._begin <= len(self._bytes):
            if end > self._end:
                return Next.NOTHING
            found = self._publication(body, end)
        if found is None:
            self._other_bytes = end - self._begin
            return Next.OTHER
        self._begin = end
        return found

    def _length(self) -> tuple[int, int] | None:
        """Return where the packet's body begins and how long it is, None when that is not known yet."""
        remaining = 0
        for number in range(_MOST_LENGTH_BYTES):
            at = self._begin + 1 + number
            if at >= self._end:
                return None
            byte = self._bytes[at]
            remaining |= (byte & 0x7F) << 7 * number
            if byte < 0x80:
                return at + 1, remaining
        return self._begin + 1 + _MOST_LENGTH_BYTES, remaining  # malformed, which its reader will find, too

    def _publication(self, body: int, end: int) -> Publication | None:
        if end - body < 2:
            return None
        topic = body + 2
        payload = topic + int.from_bytes(self._bytes[body:topic], "big")
        if not topic < payload <= end:
            return None
        retained = bool(self._bytes[self._begin] & _RETAIN_BIT)
        return Publication(bytes(self._bytes[topic:payload]), bytes(self._bytes[payload:end]), retained)
