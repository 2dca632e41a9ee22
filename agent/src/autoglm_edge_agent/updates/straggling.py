"""Whether a follower is so far behind its stream that it had better leave it. Pure.

A stream goes at the pace of its median follower. What a slower one has not taken waits in the broker's queue, where it
takes memory, and where whatever else is meant for the device waits behind it. How long that queue is the device finds
out by saying something that the broker acknowledges: the acknowledgement takes its place at the end, and comes when
the blocks before it have. Half of the followers have no more than a window before theirs; who has clearly more, and
half as many as have come so far, is a straggler. That second condition tells who is slow from who is, for a long time,
a little slower than the median, as half of the followers are.
"""

from __future__ import annotations

STREAM_WINDOW_BLOCKS = 64
"""How far a stream is ahead of its median follower."""
FAR_BEHIND_BLOCKS = STREAM_WINDOW_BLOCKS + 32
"""More than the window, and what is on its way when something is said."""

FAR_BEHIND_SHARE = 0.5
"""Of the blocks that have come: behind by so many is who gets two blocks where the median gets three."""


class Straggling:
    """The length of one follower's queue, as far as it is known."""

    def __init__(self) -> None:
        self._come = 0
        """Blocks of the stream, before something was said."""
        self._gone_by: int | None = None
        """And since, while no word has come."""

    @property
    def waits(self) -> bool:
        """Whether an acknowledgement is waited for."""
        return self._gone_by is not None

    def asked(self) -> None:
        """Note that something was said that the broker is to acknowledge."""
        self._gone_by = 0

    def passed(self) -> None:
        """Note that a block of the stream has gone by."""
        if self._gone_by is None:
            self._come += 1
        else:
            self._gone_by += 1

    def acknowledged(self) -> None:
        """Note that the broker's word has come."""
        self._come += self._gone_by or 0
        self._gone_by = None

    @property
    def is_far_behind(self) -> bool:
        """Whether more blocks have come before the broker's word than wait for who is nearly as quick as the median."""
        return self._gone_by is not None and self._gone_by > max(FAR_BEHIND_BLOCKS, FAR_BEHIND_SHARE * self._come)
