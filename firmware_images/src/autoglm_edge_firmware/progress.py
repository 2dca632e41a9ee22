"""How long work tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears of work that takes long."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Hear that `done` of `total` (bytes, or any unit) of a step are done; a total of 0 is not known."""


def silent(step: str, done: int, total: int) -> None:
    """Hear nothing."""
