"""Pauses between attempts: each time twice as long, and not in step with the others who try.

After "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), its "equal jitter": at least half of the time, so
that nobody hammers, and by chance up to the whole of it, so that a thousand boards do not come back at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_MOST_DOUBLINGS = 20


@dataclass(frozen=True)
class Backoff:
    """Pauses that begin with `first_s` and grow to `last_s`, in seconds."""

    first_s: float
    last_s: float

    def pause_s(self, attempt: int, chance: float | None = None) -> float:
        """Return how long to wait after the failed attempt of this number, from 0; `chance`: 0 to 1, None: random."""
        longest_s = min(self.last_s, self.first_s * 2.0 ** min(attempt, _MOST_DOUBLINGS))
        share = random.random() if chance is None else chance  # noqa: S311  for pace, not for secrets
        return longest_s * (0.5 + share / 2)
