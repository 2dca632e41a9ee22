"""Serving blocks: to each device in its turn, and once to all that follow a file.

Memory stays bounded: what waits are names of blocks, a bounded number per device; bytes are read only when the link
has room for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from autoglm_edge_fleet.devices import Traffic
from autoglm_edge_fleet.fair_queue import Admission, FairQueue
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.packer import Packer
from autoglm_edge_fleet.streams import Block, Streams
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import EVERYBODY
from autoglm_edge_protocol.packing import ZSTD
from autoglm_edge_protocol.topics import Channel, Topic
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest, StreamCredit, from_bitmap

TOO_LARGE = "block-too-large"
_IDLE_S = 3600.0
_TURN_BLOCKS = 8
"""Blocks sent before anything else gets its turn: less than a millisecond on a workstation."""


class BlockLink(Protocol):
    """What blocks are sent over."""

    def send_block(self, topic: str, payload: bytes) -> bool:
        """Send without waiting; returns False when there is no connection."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether a block can be sent without piling up."""
        ...

    async def room_for_block(self) -> None:
        """Wait until it can."""
        ...


@dataclass(frozen=True)
class Planned:
    """What a request comes to."""

    size_bytes: int
    """Of the file."""
    blocks: tuple[Block, ...]
    """What it asks for."""
    missing: set[int] | None
    """All blocks that a follower lacks; None: it does not follow."""


def plan(request: FetchRequest, size_bytes: int | None) -> Planned | Reason:
    """Return what is asked for, or why it cannot be sent. `size_bytes` of the object, None when there is none."""
    if size_bytes is None:
        return Reason(code="not-found", message="no published bundle has this file")
    blocks = tuple(_blocks(request, size_bytes))
    missing = None if request.follow is None else from_bitmap(request.follow)
    count = -(-size_bytes // request.block_bytes)
    if any(block.size_bytes <= 0 for block in blocks) or max(missing or (), default=-1) >= count:
        return Reason(code="out-of-range", message=f"the file has {size_bytes} bytes")
    return Planned(size_bytes, blocks, missing)


def _blocks(request: FetchRequest, size_bytes: int) -> Iterator[Block]:
    for number in request.blocks():
        offset = number * request.block_bytes
        yield Block(request.sha256, offset, min(request.block_bytes, size_bytes - offset), ZSTD in request.encodings)


class Objects(Protocol):
    """Where the bytes are."""

    def holds(self, sha256: str, size_bytes: int) -> bool:
        """Return whether an object is there in its full size. Raises OSError."""
        ...

    def read(self, sha256: str, offset: int, size_bytes: int) -> bytes:
        """Return bytes of an object. Raises OSError."""
        ...


class BlockServer:
    """Sends queued blocks for as long as `run` runs.

    Args:
        block_bytes: the largest block that the broker carries.
        per_s: so many messages a second at most, None: as many as the link takes.
    """

    def __init__(
        self,
        fleet: str,
        objects: Objects,
        link: BlockLink,
        say: Callable[[str], None],
        block_bytes: int = LIMITS.block_bytes,
        per_s: float | None = None,
    ) -> None:
        self.block_bytes = block_bytes
        self._fleet = fleet
        self._objects = objects
        self._link = link
        self._say = say
        self._pause_s = 1 / per_s if per_s else 0.0
        self._queue: FairQueue[Block] = FairQueue(FLEET_LIMITS.queued_blocks)
        self._streams = Streams()
        self._packer = Packer()
        self._waiting = asyncio.Event()
        self._traffic: dict[str, Traffic] = {}

    def request(
        self, device: str, request: FetchRequest, size_bytes: int | None, expected: frozenset[str] = frozenset()
    ) -> FetchRefusal | None:
        """Queue what a device asks for; returns why it cannot be sent. What finds no place is asked for again.

        `expected`: the devices that are likely to ask for the same file soon.
        """
        planned = self._plan(request, size_bytes)
        if isinstance(planned, Reason):
            largest = self.block_bytes if planned.code == TOO_LARGE else None
            return FetchRefusal(
                request_id=request.request_id, sha256=request.sha256, reason=planned, block_bytes=largest
            )
        if not self._follows(device, request, planned, expected):
            for block in planned.blocks:
                if self._queue.push(device, block) is Admission.FULL:
                    break
        self._waiting.set()
        return None

    def _follows(self, device: str, request: FetchRequest, planned: Planned, expected: frozenset[str]) -> bool:
        """Whether a stream brings the device what it asks for."""
        key = (request.sha256, request.block_bytes)
        if planned.missing is None:
            self._streams.leave(device, key)
            return False
        unpacks = ZSTD in request.encodings
        return self._streams.join(device, key, planned.size_bytes, planned.missing, unpacks, expected, time.monotonic())

    def _plan(self, request: FetchRequest, size_bytes: int | None) -> Planned | Reason:
        if request.block_bytes > self.block_bytes:
            return Reason(code=TOO_LARGE, message=f"the broker carries {self.block_bytes} bytes in a block")
        if size_bytes is not None and not self._objects.holds(request.sha256, size_bytes):
            return Reason(code="not-found", message="the repository has lost this file; publish its bundle again")
        return plan(request, size_bytes)

    def credit(self, device: str, credit: StreamCredit) -> None:
        """Note how far a device has followed a stream."""
        self._streams.credit(device, (credit.sha256, credit.block_bytes), credit.block, time.monotonic())
        self._waiting.set()

    def drop(self, device: str) -> None:
        """Forget what a device has asked for: it is gone."""
        self._queue.drop(device)
        self._streams.drop(device)

    async def run(self) -> None:
        """Send blocks until cancelled."""
        while True:
            await self._link.room_for_block()
            if self._send_some():
                await asyncio.sleep(self._pause_s)
                continue
            self._waiting.clear()
            wait_s = max(0.005, min(_IDLE_S, self._streams.wake_at() - time.monotonic()))
            try:
                async with asyncio.timeout(wait_s):
                    await self._waiting.wait()
            except TimeoutError:
                continue

    def _send_some(self) -> bool:
        """Send what one turn of the loop may; returns whether there was any."""
        most = 1 if self._pause_s else _TURN_BLOCKS
        sent = 0
        while sent < most and self._link.has_room and self._send_next(time.monotonic()):
            sent += 1
        return sent > 0

    def _send_next(self, now: float) -> bool:
        """Send a block of a stream and one that was asked for; returns whether there was any."""
        shared = self._streams.next(now)
        if shared is not None:
            self._send(EVERYBODY, shared)
        # What is taken from the queue without room for it would be lost, and asked for again only seconds later.
        turn = self._queue.pop() if self._link.has_room else None
        if turn is not None:
            self._send(*turn)
        return shared is not None or turn is not None

    def _send(self, device: str, block: Block) -> None:
        try:
            data = self._objects.read(block.sha256, block.offset, block.size_bytes)
        except OSError as error:
            self._say(f"{device}: a block cannot be read: {error}")
            return
        packed = self._packer.pack(block.sha256, block.offset, data) if block.may_pack else None
        channel = Channel.PACKED if packed else Channel.BLOCK
        payload = packed or data
        if self._link.send_block(str(Topic(self._fleet, device, channel, block.sha256, block.offset)), payload):
            self.add_traffic({device: Traffic(len(payload), 1)})

    def add_traffic(self, traffic: dict[str, Traffic]) -> None:
        """Count what was sent."""
        for device, sent in traffic.items():
            before = self._traffic.get(device, Traffic())
            self._traffic[device] = Traffic(before.size_bytes + sent.size_bytes, before.blocks + sent.blocks)

    def take_traffic(self) -> dict[str, Traffic]:
        """Return what was sent since the last call, by device; what all followers got is under `EVERYBODY`."""
        taken, self._traffic = self._traffic, {}
        return taken
