"""Following the stream of a file: listening, saying how far it has come, and leaving.

Who is far behind leaves early; that is decided in `straggling`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.updates.blocks import BlockTransfer
from autoglm_edge_agent.updates.requests import Requests
from autoglm_edge_agent.updates.straggling import Straggling
from autoglm_edge_protocol.errors import LinkError
from autoglm_edge_protocol.transfer import StreamCredit

CREDIT_BLOCKS, CREDIT_S = 32, 0.5
"""How many blocks of a stream go by, or how much time, between two words about it: half of the window that the fleet
keeps to. What the fleet spends on a cohort is mostly reading these."""


class Following:
    """What one transfer has to do with the stream of its file.

    Args:
        requests: the way to the fleet.
        transfer: what is missing of the file.
        sha256: the file.
        wake: called when something else is to be done than to follow.
    """

    def __init__(self, requests: Requests, transfer: BlockTransfer, sha256: str, wake: Callable[[], None]) -> None:
        self._requests = requests
        self._transfer = transfer
        self._sha256 = sha256
        self._wake = wake
        self._credited, self._credited_at = 0, 0.0
        self._straggling = Straggling()
        self._said: set[asyncio.Task[None]] = set()
        self._listens = False

    def begin(self, now: float) -> None:
        """Listen, before the fleet is told so."""
        self._requests.follow(self._sha256)
        self._listens = True
        self._transfer.follow(now)

    def gone_by(self, number: int, now: float) -> None:
        """Take note of a block of the stream, be it missing here or not."""
        self._transfer.passed(number, now)
        self._straggling.passed()
        if not self._listens:
            return  # left already, and this was on its way
        credit = StreamCredit(sha256=self._sha256, block_bytes=self._transfer.block_bytes, block=number)
        if self._straggling.is_far_behind:
            self.leave()
            self._say(credit, self._left)
        elif number - self._credited >= CREDIT_BLOCKS or now - self._credited_at >= CREDIT_S:
            self._credited, self._credited_at = number, now
            if self._straggling.waits:
                self._requests.credit(credit)
            else:
                self._straggling.asked()
                self._say(credit, self._straggling.acknowledged)

    def leave(self) -> None:
        """Listen no more."""
        if self._listens:
            self._listens = False
            self._requests.unfollow(self._sha256)

    async def stop(self) -> None:
        """Leave, and return when nothing is being said any more."""
        self.leave()
        await cancel(*self._said)

    def _say(self, credit: StreamCredit, acknowledged: Callable[[], None]) -> None:
        async def say() -> None:
            with contextlib.suppress(LinkError):  # after a lost connection there is no stream any more
                await self._requests.acknowledged_credit(credit)
                acknowledged()

        said = asyncio.ensure_future(say())
        self._said.add(said)
        said.add_done_callback(self._said.discard)

    def _left(self) -> None:
        # The broker holds nothing more of the stream. Whoever asks before that gets most blocks twice.
        self._transfer.left(time.monotonic())
        self._wake()
