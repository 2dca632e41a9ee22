"""When and how fast bulk data may come: the owner's cap and quiet hours. Pure.

The cap is a token bucket (as in RFC 2697, one rate and one burst) that is drawn on when blocks are asked for: what is
not asked for is not sent.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

_BURST_S = 1.0
_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class Allowance:
    """So many bytes a second, saved up for at most a second but always for one block.

    Args:
        bytes_per_s: the cap; None: there is none.
        now: monotonic seconds.
    """

    def __init__(self, bytes_per_s: int | None, now: float) -> None:
        self._rate = bytes_per_s
        self._tokens = 0.0
        self._at = now

    @property
    def unlimited(self) -> bool:
        """Whether there is no cap."""
        return self._rate is None

    def blocks(self, block_bytes: int, now: float) -> int | None:
        """Return how many blocks may be asked for now; None: any number."""
        if self._rate is None:
            return None
        burst = max(_BURST_S * self._rate, float(block_bytes))
        self._tokens = min(burst, self._tokens + self._rate * max(0.0, now - self._at))
        self._at = now
        return int(self._tokens // block_bytes)

    def spend(self, size_bytes: int) -> None:
        """Note that so many bytes were asked for."""
        if self._rate is not None:
            self._tokens -= size_bytes

    def wait_s(self, block_bytes: int) -> float:
        """Return how long it takes until a block may be asked for."""
        return 0.0 if self._rate is None else max(0.0, (block_bytes - self._tokens) / self._rate)


@dataclass(frozen=True)
class QuietHours:
    """A span of every day, by the board's local time, in which no bulk data is fetched."""

    begin: datetime.time
    end: datetime.time

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read `HH:MM-HH:MM`; a span that ends before it begins goes over midnight. Raises ValueError."""
        match = _SPAN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no span of hours; write 08:00-18:30")
        hours = [int(part) for part in match.groups()]
        begin, end = datetime.time(hours[0], hours[1]), datetime.time(hours[2], hours[3])
        if begin == end:
            raise ValueError(f"{text!r} leaves out no time, or all of it")
        return cls(begin, end)

    def contain(self, now: datetime.time) -> bool:
        """Whether this time of day is one of them."""
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"
