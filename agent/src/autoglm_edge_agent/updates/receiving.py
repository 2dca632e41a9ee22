"""Receiving one file from the fleet: asking, checking and writing, from the first request to the last block.

What is asked for and when is decided in `blocks`, `pace` and `allowance`; here it is done. Streams are for `following`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.updates.allowance import Allowance
from autoglm_edge_agent.updates.blocks import BlockTransfer
from autoglm_edge_agent.updates.following import Following
from autoglm_edge_agent.updates.partial import PartialFile
from autoglm_edge_agent.updates.policy import TransferPolicy
from autoglm_edge_agent.updates.requests import Requests
from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.packing import unpack
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest, to_bitmap, to_ranges

PATIENCE_S = 60.0
"""How long nothing that is waited for may come, while connected, until the fleet is reported as silent; the fetch then
begins anew by itself. The time in which the owner's cap lets nothing be asked for does not count."""
_INBOX_BLOCKS = 256
"""Blocks that wait to be written; more are dropped and asked for again."""
_TURN_BLOCKS = 8
"""Blocks taken in before anything else gets its turn: a few milliseconds on a small board."""
_FOLLOWED_BLOCKS = 2
"""A file that lacks fewer is not worth a subscription."""


@dataclass(frozen=True)
class Block:
    """Bytes of a file, as they arrived."""

    sha256: str
    offset: int
    data: bytes
    packed: bool = False
    shared: bool = False
    """Sent to all that follow the file."""


class BlockTooLarge(Exception):
    """The fleet's broker carries blocks of `block_bytes` at most."""

    def __init__(self, block_bytes: int) -> None:
        super().__init__(f"blocks of {block_bytes} bytes at most")
        self.block_bytes = block_bytes


class Receiving:
    """One transfer of one file.

    Args:
        requests: the way to the fleet.
        policy: when, how fast and in what blocks.
        allowance: what may be asked for; it outlives the file.
        partial: the file as far as it is here.
        transfer: what of it is missing.
        first_request_id: of the requests of this transfer.
        on_progress: called when more of it is here.
    """

    def __init__(
        self,
        requests: Requests,
        policy: TransferPolicy,
        allowance: Allowance,
        partial: PartialFile,
        transfer: BlockTransfer,
        first_request_id: int,
        on_progress: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._policy = policy
        self._allowance = allowance
        self._partial = partial
        self._transfer = transfer
        self._first_request_id = first_request_id
        self.next_request_id = first_request_id
        self._on_progress = on_progress
        self._inbox: deque[Block | FetchRefusal] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._silence_s = 0.0
        self._following = Following(requests, transfer, self.sha256, self._wake)
        self._connected = True

    @property
    def sha256(self) -> str:
        """The digest of the file."""
        return self._partial.file.sha256

    def deliver(self, item: Block | FetchRefusal) -> None:
        """Take what arrived; what is for another file or an earlier request is dropped."""
        if item.sha256 != self.sha256:
            return
        if isinstance(item, FetchRefusal) and not self._first_request_id <= item.request_id < self.next_request_id:
            return  # of a fetch that is over: what the fleet did not have then it may have now
        if len(self._inbox) < _INBOX_BLOCKS:  # else asked for again when its time is up
            self._inbox.append(item)
            self._wake()

    async def run(self) -> None:
        """Receive all that is missing.

        Raises:
            Refusal: the fleet cannot send it.
            Hindrance: the fleet is silent (`fleet-silent`), or these are quiet hours (`quiet-hours`).
            CorruptChunk, BlockTooLarge; OSError from the disk.
        """
        follow = self._allowance.unlimited and self._policy.follow and len(self._transfer.missing) >= _FOLLOWED_BLOCKS
        try:
            await self._until_complete(follow)
        finally:
            await self._following.stop()

    async def _until_complete(self, follow: bool) -> None:
        while not self._transfer.complete:
            self._policy.check_hours()
            now = time.monotonic()
            if not self._requests.connected:
                if self._connected:
                    self._transfer.restart_timer(now)
                self._connected = False
                self._silence_s = 0.0
                await asyncio.sleep(0.1)
                continue
            self._connected = True
            # Only the first request offers to follow: by the next one this device lags behind the stream.
            follow = not self._ask(now, follow) and follow
            if not self._transfer.following:
                self._following.leave()
            await self._receive(now)

    def _ask(self, now: float, follow: bool) -> bool:
        """Ask for what may be asked for now; returns whether a request was sent."""
        block_bytes = self._transfer.block_bytes
        blocks = self._transfer.requests(now, self._allowance.blocks(block_bytes, now))
        if not blocks:
            return False
        self._allowance.spend(len(blocks) * block_bytes)
        missing = to_bitmap(self._transfer.missing) if follow else ""
        follow = 0 < len(missing) <= LIMITS.bitmap_base64_bytes
        request = FetchRequest(
            request_id=self.next_request_id,
            sha256=self.sha256,
            block_bytes=block_bytes,
            ranges=to_ranges(blocks),
            encodings=self._policy.encodings,
            follow=missing if follow else None,
        )
        self.next_request_id += 1
        if follow:
            self._following.begin(now)
        return self._requests.request(request)

    async def _receive(self, now: float) -> None:
        """Take what has come; wait for it no longer than until something else is to be done."""
        if self._inbox:
            for _ in range(min(len(self._inbox), _TURN_BLOCKS)):
                self._take(self._inbox.popleft())
            await asyncio.sleep(0)  # the loop's other work gets its turn all the same
            return
        wait_s = min(self._transfer.retry_at - now, 1.0)
        if not self._allowance.unlimited:
            wait_s = min(wait_s, self._allowance.wait_s(self._transfer.block_bytes))
        await self._arrival(max(0.01, wait_s))
        if self._transfer.awaits_blocks:
            self._silence_s += time.monotonic() - now
        if not self._inbox and self._silence_s > PATIENCE_S:
            raise Hindrance("fleet-silent", f"nothing came for {PATIENCE_S:.0f} s, asking again")

    async def _arrival(self, timeout_s: float) -> None:
        """Wait until something comes or the time is up: often, hence without a task, as `wait_for` makes it."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, item: Block | FetchRefusal) -> None:
        if isinstance(item, Block):
            self._take_block(item)
        elif item.block_bytes is not None and item.block_bytes < self._transfer.block_bytes:
            raise BlockTooLarge(item.block_bytes)
        else:
            raise Refusal(item.reason.code, f"the fleet cannot send {self.sha256[:12]}: {item.reason.message}")

    def _take_block(self, block: Block) -> None:
        transfer, now = self._transfer, time.monotonic()
        data = self._unpacked(block)
        if data is None:
            return  # asked for again when its time is up
        accepted = transfer.accepts(block.offset, len(data))
        if accepted:
            self._silence_s = 0.0
            self._partial.write(block.offset, data)
            for chunk in transfer.received(block.offset, now):
                self._check(chunk)
            self._on_progress()
        if block.shared:
            self._following.gone_by(block.offset // transfer.block_bytes, now)
        elif accepted:
            transfer.pulled()
        else:
            transfer.refused(block.offset)

    def _unpacked(self, block: Block) -> bytes | None:
        if not block.packed:
            return block.data
        try:
            return unpack(block.data, self._transfer.block_bytes)
        except MalformedDocument:
            return None

    def _check(self, chunk: int) -> None:
        if self._partial.holds(chunk):
            self._transfer.verified(chunk)
        else:
            self._transfer.corrupt(chunk)
