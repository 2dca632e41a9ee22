"""How the owner of a board wants bulk data to come: when, how fast, in what blocks and from where."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.updates.allowance import QuietHours
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.packing import ENCODINGS

SourceName = Literal["folder", "https", "fleet"]
SOURCES: tuple[SourceName, ...] = ("folder", "https", "fleet")
"""Where files of bundles may come from."""


@dataclass(frozen=True)
class TransferPolicy:
    """How the owner of the board wants bulk data to come."""

    block_bytes: int = LIMITS.block_bytes
    max_bytes_per_s: int | None = None
    """A device with a cap never follows a stream: that comes as fast as the others take it."""
    quiet_hours: QuietHours | None = None
    follow: bool = True
    encodings: tuple[str, ...] = ENCODINGS
    sources: tuple[SourceName, ...] = SOURCES
    """What is asked, in this order; the fleet, where it is asked at all, last."""

    def check_hours(self) -> None:
        """Raise Hindrance (`quiet-hours`) while nothing is to be fetched."""
        if self.quiet_hours and self.quiet_hours.contain(datetime.datetime.now().time()):
            raise Hindrance("quiet-hours", f"nothing is fetched in the quiet hours, {self.quiet_hours} by local time")
