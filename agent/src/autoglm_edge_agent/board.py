"""What this board is: model, architecture, memory, and which inference runtimes are installed."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

from autoglm_edge_agent import __version__
from autoglm_edge_protocol.deployment import DeviceFacts

RUNTIME_PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
"""Runtime -> the packages that provide it. Read from package metadata: importing one would cost tens of megabytes."""


def read_facts(device_tree: Path = Path("/proc/device-tree")) -> DeviceFacts:
    """Return what the board tells about itself."""
    return DeviceFacts(
        agent_version=__version__,
        board=_board(device_tree),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        runtimes=installed_runtimes(),
    )


def installed_runtimes() -> dict[str, str]:
    """Return the installed runtimes with their versions."""
    found: dict[str, str] = {}
    for runtime, packages in RUNTIME_PACKAGES.items():
        for package in packages:
            try:
                found.setdefault(runtime, metadata.version(package))
            except metadata.PackageNotFoundError:
                continue
    return found


def _board(device_tree: Path) -> str:
    try:
        # The kernel ends the strings of a device tree with NUL.
        return (device_tree / "model").read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError:
        return f"{platform.system()} {platform.machine()}"
