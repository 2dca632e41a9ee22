"""Looks at the board through psutil. A figure that a board does not tell is None, never an error."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from autoglm_edge_agent.telemetry.temperature import temperature_c
from autoglm_edge_protocol.telemetry import SystemSample


def take_sample(storage: Path, worker_rss_bytes: int | None) -> SystemSample:
    """Return the board's state; processor use is since the last call."""
    memory = psutil.virtual_memory()
    return SystemSample(
        at=time.time(),
        cpu_percent=psutil.cpu_percent(interval=None),
        load_1m=_load(),
        memory_used_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        disk_free_bytes=_free(storage),
        temperature_c=temperature_c(),
        agent_rss_bytes=psutil.Process().memory_info().rss,
        worker_rss_bytes=worker_rss_bytes,
    )


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _free(storage: Path) -> int | None:
    try:
        return psutil.disk_usage(str(storage)).free
    except OSError:
        return None
