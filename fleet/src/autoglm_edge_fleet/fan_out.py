"""One stream of a file for all devices that lack it: who follows, which block is next, and when it may go out. Pure.

A stream waits a moment for those who are expected, then sends every block that any follower lacks once, in order. It
is paced by credit: followers say now and then which block has come, and the stream is never further than a window
ahead of the median follower. The slower half misses what its connection cannot take, and pulls that afterwards; who
has fallen far behind is not waited for the next time. Who says nothing for a while is not waited for at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

WINDOW = 64
"""Blocks sent and not yet seen by the median follower: 4 MB, a long line's worth."""
GATHER_S = 1.0
"""How long a stream waits for expected followers; well below the devices' patience, which is 6 s."""
SETTLE_S = 0.2
"""It begins earlier when half of them have come and nobody else for so long."""
SILENCE_S = 8.0
"""A follower that has said nothing for so long, while a full window waited for it, is given up."""
LAG_BLOCKS = 2 * WINDOW
"""Who ends a stream further back is slow, and not expected again for a while."""


@dataclass
class _Follower:
    """Where a device is, as an index into what was sent."""

    seen: int = 0
    """How many of the sent blocks lie at or before the newest that has come."""
    heard_at: float = 0.0


class Stream:
    """The blocks of one file, in one size, to all that follow.

    Args:
        expected: how many devices are likely to follow.
        now: monotonic seconds.
    """

    def __init__(self, expected: int, now: float) -> None:
        self._expected = expected
        self._begun_at = now
        self._joined_at = now
        self._started = False
        self._followers: dict[str, _Follower] = {}
        self._waiting: deque[int] = deque()
        self._sent: list[int] = []

    @property
    def followers(self) -> frozenset[str]:
        """The devices that follow."""
        return frozenset(self._followers)

    @property
    def slow(self) -> frozenset[str]:
        """The devices that are far behind."""
        return frozenset(name for name, one in self._followers.items() if len(self._sent) - one.seen > LAG_BLOCKS)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to send, or nobody to send it to."""
        return not self._followers or (self._started and not self._waiting)

    def join(self, device: str, missing: set[int], now: float) -> None:
        """Take a device in. What has gone by already it has to pull; blocks to come are sent for it too."""
        self._joined_at = now
        self._followers[device] = _Follower(len(self._sent), now)
        newest = self._sent[-1] if self._sent else -1
        self._waiting = deque(sorted({*self._waiting, *(block for block in missing if block > newest)}))

    def leave(self, device: str) -> None:
        """Let a device go: it is gone, or pulls."""
        self._followers.pop(device, None)

    def credit(self, device: str, block: int, now: float) -> None:
        """Note which block a device has seen last."""
        follower = self._followers.get(device)
        if follower is not None:
            follower.seen = max(follower.seen, bisect_right(self._sent, block))
            follower.heard_at = now

    def next(self, now: float) -> int | None:
        """Return the block to send now, None when none may be sent yet; `wake_at` says when to ask again."""
        if not self._ready(now) or not self._waiting or not self._followers:
            return None
        if self._is_full():
            self._give_up_silent(now)
            if not self._followers or self._is_full():
                return None
        block = self._waiting.popleft()
        self._sent.append(block)
        return block

    def wake_at(self) -> float:
        """Return when `next` may give a block though nothing has been heard."""
        if not self._started:
            settled_at = self._joined_at + SETTLE_S
            return min(settled_at if self._is_half_here() else float("inf"), self._begun_at + GATHER_S)
        return min((one.heard_at for one in self._followers.values()), default=0.0) + SILENCE_S

    def _ready(self, now: float) -> bool:
        if not self._started:
            everybody = len(self._followers) >= self._expected
            self._started = everybody or now >= self.wake_at()
            if self._started:
                for follower in self._followers.values():
                    follower.heard_at = now
        return self._started

    def _is_half_here(self) -> bool:
        return 2 * len(self._followers) >= self._expected

    def _is_full(self) -> bool:
        seen = sorted(follower.seen for follower in self._followers.values())
        # Of two, the slower one: neither is to be flooded.
        return len(self._sent) - seen[(len(seen) - 1) // 2] >= WINDOW

    def _give_up_silent(self, now: float) -> None:
        oldest = len(self._sent) - WINDOW
        for device, follower in list(self._followers.items()):
            if follower.seen <= oldest and now - follower.heard_at > SILENCE_S:
                del self._followers[device]
