"""When this release was made: no board that runs it can be earlier in time, whatever its clock says."""

from __future__ import annotations

from typing import Final

RELEASED_AT: Final = 1_795_392_000.0
"""Unix time in seconds: 2026-11-23 00:00 UTC. Set with each release; a test keeps it from being in the future."""
