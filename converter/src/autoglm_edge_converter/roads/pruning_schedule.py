"""How much to prune at each step, with training between the steps. Pure: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STEPS = 4
BISECTIONS = 10
LARGEST_CHANNEL_RATIO = 0.9
"""Of the channels, all and each layer's; what is left must still be a layer."""


@dataclass(frozen=True)
class Schedule:
    """Fractions of the original's multiplications that are gone after each step, growing to the whole budget."""

    budget: float
    steps: int = STEPS

    def __post_init__(self) -> None:
        """Refuse what cannot be had. Raises ValueError."""
        if not 0 < self.budget < 1:
            raise ValueError(f"the fraction to prune is between 0 and 1, not {self.budget:g}")
        if not 1 <= self.steps <= 100:
            raise ValueError(f"the steps of pruning are from 1 to 100, not {self.steps}")

    def targets(self) -> tuple[float, ...]:
        """Return the fraction after each step: much at first, when there is most to spare, little at the end.

        The cubic schedule of Zhu and Gupta, "To prune, or not to prune" (2017), equation 1, from nothing at the start.
        """
        return tuple(self.budget * (1 - (1 - step / self.steps) ** 3) for step in range(1, self.steps + 1))


def channel_ratio(wanted: float, removed: Callable[[float], float]) -> float:
    """Return the smallest ratio of channels, up to `LARGEST_CHANNEL_RATIO`, with which `wanted` is reached.

    `removed` gives the fraction of the multiplications that a ratio takes out and does not fall as it grows; it is
    asked `BISECTIONS` times. Where even the largest ratio takes out less, that is returned.
    """
    low, high = 0.0, LARGEST_CHANNEL_RATIO
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if removed(middle) >= wanted:
            high = middle
        else:
            low = middle
    return high
