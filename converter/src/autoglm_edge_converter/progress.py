"""What a conversion tells while it works; the command line draws bars from it, a program may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the stages of a conversion and the steps within each."""

    def stage(self, name: str, steps: int) -> None:
        """Begin a stage that expects so many steps; the stage before it is over."""

    def step(self, what: str) -> None:
        """Say that one step is done, or beyond the expected number that one more was needed."""

    def note(self, text: str) -> None:
        """Say something the user should know."""


class Silent:
    """Ignores everything."""

    def stage(self, name: str, steps: int) -> None:
        """Ignore."""

    def step(self, what: str) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
