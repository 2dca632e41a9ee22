"""The streams that are open, each in its turn: who may join which, and who is not waited for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoglm_edge_fleet.fan_out import Stream

Key = tuple[str, int]
"""A file's SHA-256, and the size of the blocks it travels in."""

_SLOW_S = 60.0
"""How long a device that fell behind is not expected."""
_NEVER = float("inf")


@dataclass(frozen=True)
class Block:
    """A piece of an object that is to be sent."""

    sha256: str
    offset: int
    size_bytes: int
    may_pack: bool = False
    """Whether all who get it can unpack it."""


@dataclass
class _Open:
    stream: Stream
    size_bytes: int
    packers: dict[str, bool] = field(default_factory=dict)
    """Whether each follower can unpack."""

    @property
    def may_pack(self) -> bool:
        return all(self.packers.get(device, False) for device in self.stream.followers)


class Streams:
    """Opens a stream when more than one device is likely to follow it."""

    def __init__(self) -> None:
        self._open: dict[Key, _Open] = {}
        self._slow_until: dict[str, float] = {}

    def join(
        self,
        device: str,
        key: Key,
        size_bytes: int,
        missing: set[int],
        unpacks: bool,
        expected: frozenset[str],
        now: float,
    ) -> bool:
        """Let a device follow a file of `size_bytes`; False when there is no stream for it and it has to pull."""
        opened = self._open.get(key)
        if opened is None:
            self._slow_until = {name: until for name, until in self._slow_until.items() if until > now}
            likely = (expected | {device}) - (self._slow_until.keys() - {device})
            if len(likely) < 2:
                return False
            opened = self._open[key] = _Open(Stream(len(likely), now), size_bytes)
        opened.stream.join(device, missing, now)
        opened.packers[device] = unpacks
        return True

    def leave(self, device: str, key: Key) -> None:
        """Let a device go that pulls."""
        if key in self._open:
            self._open[key].stream.leave(device)

    def drop(self, device: str) -> None:
        """Let a device go that is gone."""
        for opened in self._open.values():
            opened.stream.leave(device)

    def credit(self, device: str, key: Key, block: int, now: float) -> None:
        """Note which block a device has seen last."""
        if key in self._open:
            self._open[key].stream.credit(device, block, now)

    def next(self, now: float) -> Block | None:
        """Return what to send now, if anything."""
        for key, opened in list(self._open.items()):
            number = opened.stream.next(now)
            del self._open[key]
            if opened.stream.ended:
                self._slow_until |= dict.fromkeys(opened.stream.slow, now + _SLOW_S)
            else:
                self._open[key] = opened  # to the end: the others are first now
            if number is not None:
                sha256, block_bytes = key
                offset = number * block_bytes
                return Block(sha256, offset, min(block_bytes, opened.size_bytes - offset), opened.may_pack)
        return None

    def wake_at(self) -> float:
        """Return when `next` may give a block though nothing has been heard."""
        return min((opened.stream.wake_at() for opened in self._open.values()), default=_NEVER)
