"""Whom the kernel ends first when memory is short: those who can be started again, not the agent that starts them."""

from __future__ import annotations

import contextlib
from pathlib import Path

SERVING = 500
BESIDE = 800
"""What measures or compares: its end costs no answer."""


def offer(score: int) -> None:
    """Make this process so much rather the one to be ended, from 0 to 1000, than one of its size would be (proc(5))."""
    with contextlib.suppress(OSError):  # no Linux, or /proc is read-only
        Path("/proc/self/oom_score_adj").write_text(f"{score}\n", encoding="ascii")
