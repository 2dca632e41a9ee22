"""What this board is: model, architecture, memory, and which inference runtimes are installed."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from autoglm_edge_agent import __version__
from autoglm_edge_agent.inference.runtimes import installed_runtimes
from autoglm_edge_protocol.deployment import DeviceFacts


def read_facts(device_tree: Path = Path("/proc/device-tree")) -> DeviceFacts:
    """Return what the board tells about itself."""
    return DeviceFacts(
        agent_version=__version__,
        board=board_model(device_tree),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        runtimes=installed_runtimes(),
    )


def board_model(device_tree: Path = Path("/proc/device-tree")) -> str:
    """Return the board's name as its maker wrote it, else the kind of system."""
    try:
        # The kernel ends the strings of a device tree with NUL.
        return (device_tree / "model").read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError:
        return f"{platform.system()} {platform.machine()}"
