"""What an update needs of the part that runs models: the port between `updates` and `inference`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.probation import ShadowTerms


class Models(Protocol):
    """What an update needs of the part that runs models."""

    async def fastest(self, variants: Sequence[Installed]) -> Installed | None:
        """Measure variants of a bundle and return the one that runs best, of those alike the first.

        Never fails; None where none of them could be run and measured.
        """

    async def try_out(self, installed: Installed) -> None:
        """Load a bundle beside the serving one and replay its golden set. Raises Refusal or Hindrance."""

    def tried(self, installed: Installed) -> bool:
        """Whether a worker that agreed waits to take over."""

    async def switch(self, installed: Installed | None) -> None:
        """Serve this bundle from now on; never fails, a worker that dies is the supervisor's business."""

    async def discard_trial(self) -> None:
        """End a worker that will not take over."""

    async def shadow(self, previous: Installed, current: Installed, terms: ShadowTerms) -> None:
        """Let a bundle run beside the serving one on a sample of the live inputs. Never fails."""

    async def end_shadow(self) -> None:
        """End what `shadow` began."""
