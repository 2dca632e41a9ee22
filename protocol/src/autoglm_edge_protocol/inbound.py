"""Messages that came in and wait for their handler, those of each QoS in their order.

- A QoS 1 message is acknowledged to the broker only after the handler has finished with it, so what a handler commits
  to disk is not lost when the process dies first (the broker sends it again). An acknowledgement belongs to its
  connection: message ids begin anew with the next one, and paho would even send it ahead of the CONNECT.
- Bulk blocks (QoS 0) may arrive faster than they are used: their queue is bounded and drops; the receiver asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

MOST_CONTROL = 256
"""Messages at QoS 1 that may wait, those of the present connection left out: the broker itself bounds these."""


@dataclass(frozen=True)
class Message:
    """A message that came in."""

    topic: str
    payload: bytes
    qos: int
    retained: bool


Handler = Callable[[Message], Awaitable[None]]


class Inbound:
    """What waits for the handler of one link.

    Args:
        handle: awaited for each message. An exception is logged, and the message counts as handled: a message that
            cannot be handled now will not be handled better later.
        acknowledge: called with the message id and the number of the connection it came on.
        block_queue: QoS 0 messages that may wait; more are dropped and counted in `dropped_blocks`.
    """

    def __init__(self, handle: Handler, acknowledge: Callable[[int, int], None], block_queue: int) -> None:
        self._handle = handle
        self._acknowledge = acknowledge
        self._block_queue = block_queue
        self.dropped_blocks = 0
        # Bounded by the broker on each connection: no more than its in-flight limit comes before acknowledgements.
        self._control: deque[tuple[Message, int, int]] = deque()
        self._control_waiting = asyncio.Event()
        self._blocks: deque[Message] = deque()
        self._blocks_waiting = asyncio.Event()

    def put_control(self, message: Message, mid: int, connection: int) -> None:
        """Take a message at QoS 1."""
        # What an earlier connection has brought the broker sends again, as it can no longer be acknowledged. While a
        # handler waits for a disk that is full, each new connection would bring all of it once more.
        while len(self._control) >= MOST_CONTROL and self._control[0][2] != connection:
            self._control.popleft()
        self._control.append((message, mid, connection))
        self._control_waiting.set()

    def put_block(self, message: Message) -> None:
        """Take a message at QoS 0, if there is room."""
        if len(self._blocks) >= self._block_queue:
            self.dropped_blocks += 1
        else:
            self._blocks.append(message)
            self._blocks_waiting.set()

    async def consume_control(self) -> None:
        """Handle and acknowledge, until cancelled."""
        while True:
            await self._control_waiting.wait()
            self._control_waiting.clear()
            while self._control:
                message, mid, connection = self._control.popleft()
                await guarded(self._handle(message))
                self._acknowledge(mid, connection)

    async def consume_blocks(self) -> None:
        """Handle, until cancelled."""
        while True:
            await self._blocks_waiting.wait()
            self._blocks_waiting.clear()
            while self._blocks:
                await guarded(self._handle(self._blocks.popleft()))


async def guarded(work: Awaitable[None]) -> None:
    """Do what a user of the link has given it to do; what goes wrong is logged."""
    try:
        await work
    except Exception:
        log.exception("a message could not be handled")
