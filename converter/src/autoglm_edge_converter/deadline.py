"""How long the search may take, told as a share, so that each of its parts knows when to leave time for the next."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """Counts from when it is made."""

    def __init__(self, budget_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.budget_s = budget_s
        self._clock_s = clock_s
        self._started_s = clock_s()

    @property
    def used_s(self) -> float:
        """How much of the budget is used up, and no more than all of it."""
        return min(self.budget_s, self._clock_s() - self._started_s)

    def passed(self, share: float = 1.0) -> bool:
        """Tell whether this share of the budget is used up."""
        return self._clock_s() - self._started_s >= share * self.budget_s
