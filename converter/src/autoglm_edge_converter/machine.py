"""What this machine is called in figures that were measured on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from autoglm_edge_converter.processor import own_words

TOOLS = ("autoglm-edge-converter", "numpy", "onnx", "onnxruntime", "onnxslim")


def machine_name() -> str:
    """Return processor, architecture, number of cores and 8-bit units, as far as the system tells."""
    facts = [platform.machine(), f"{os.cpu_count()} cores", *filter(None, [own_words()])]
    return f"{_processor()} ({', '.join(facts)})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or "unknown processor"


def versions() -> dict[str, str]:
    """Return the versions of everything that shapes the result."""
    return {tool: version(tool) for tool in TOOLS} | {"python": platform.python_version()}
