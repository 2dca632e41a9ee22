"""Waiting for what other tasks bring about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout_s: float, pause_s: float = 0.01) -> None:
    """Return when the condition holds. Not by `asyncio.timeout`, which Python 3.10 has not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        await asyncio.sleep(pause_s)
