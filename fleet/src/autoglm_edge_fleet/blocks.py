"""Serving blocks: what a request asks for, and sending it, each device in its turn.

Memory stays bounded: what waits are names of blocks, a bounded number per device; bytes are read only when the link
has room for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from autoglm_edge_fleet.devices import Traffic
from autoglm_edge_fleet.fair_queue import Admission, FairQueue
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.topics import Channel, Topic
from autoglm_edge_protocol.transfer import FetchRequest


@dataclass(frozen=True)
class Block:
    """A piece of an object."""

    sha256: str
    offset: int
    size_bytes: int


class BlockLink(Protocol):
    """What blocks are sent over."""

    def send_block(self, topic: str, payload: bytes) -> bool:
        """Send without waiting; returns False when there is no connection."""
        ...

    async def room_for_block(self) -> None:
        """Wait until a block can be sent without piling up."""
        ...


def plan(request: FetchRequest, size_bytes: int | None) -> list[Block] | Reason:
    """Return the blocks asked for, or why they cannot be sent. `size_bytes` of the object, None when there is none."""
    if size_bytes is None:
        return Reason(code="not-found", message="no published bundle has this file")
    blocks = list(_blocks(request, size_bytes))
    if any(block.size_bytes <= 0 for block in blocks):
        return Reason(code="out-of-range", message=f"the file has {size_bytes} bytes")
    return blocks


def _blocks(request: FetchRequest, size_bytes: int) -> Iterator[Block]:
    for number in request.blocks():
        offset = number * request.block_bytes
        yield Block(request.sha256, offset, min(request.block_bytes, size_bytes - offset))


class Objects(Protocol):
    """Where the bytes are."""

    def holds(self, sha256: str, size_bytes: int) -> bool:
        """Return whether an object is there in its full size. Raises OSError."""
        ...

    def read(self, sha256: str, offset: int, size_bytes: int) -> bytes:
        """Return bytes of an object. Raises OSError."""
        ...


class BlockServer:
    """Sends queued blocks for as long as `run` runs."""

    def __init__(self, fleet: str, objects: Objects, link: BlockLink, say: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._objects = objects
        self._link = link
        self._say = say
        self._queue: FairQueue[Block] = FairQueue(FLEET_LIMITS.queued_blocks)
        self._waiting = asyncio.Event()
        self._traffic: dict[str, Traffic] = {}

    def request(self, device: str, request: FetchRequest, size_bytes: int | None) -> Reason | None:
        """Queue what a device asks for; returns why it cannot be sent. What finds no place is asked for again."""
        if size_bytes is not None and not self._objects.holds(request.sha256, size_bytes):
            return Reason(code="not-found", message="the repository has lost this file; publish its bundle again")
        planned = plan(request, size_bytes)
        if isinstance(planned, Reason):
            return planned
        for block in planned:
            if self._queue.push(device, block) is Admission.FULL:
                break
        self._waiting.set()
        return None

    def drop(self, device: str) -> None:
        """Forget what a device has asked for: it is gone."""
        self._queue.drop(device)

    async def run(self) -> None:
        """Send blocks until cancelled."""
        while True:
            await self._waiting.wait()
            await self._link.room_for_block()
            turn = self._queue.pop()
            if turn is None:
                self._waiting.clear()
                continue
            self._send(*turn)
            await asyncio.sleep(0)

    def _send(self, device: str, block: Block) -> None:
        try:
            data = self._objects.read(block.sha256, block.offset, block.size_bytes)
        except OSError as error:
            self._say(f"{device}: a block cannot be read: {error}")
            return
        topic = Topic(self._fleet, device, Channel.BLOCK, block.sha256, block.offset)
        if self._link.send_block(str(topic), data):
            self.add_traffic({device: Traffic(len(data), 1)})

    def add_traffic(self, traffic: dict[str, Traffic]) -> None:
        """Count what was sent."""
        for device, sent in traffic.items():
            before = self._traffic.get(device, Traffic())
            self._traffic[device] = Traffic(before.size_bytes + sent.size_bytes, before.blocks + sent.blocks)

    def take_traffic(self) -> dict[str, Traffic]:
        """Return what was sent since the last call."""
        taken, self._traffic = self._traffic, {}
        return taken
