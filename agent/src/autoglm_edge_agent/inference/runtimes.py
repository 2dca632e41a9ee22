"""Which inference runtimes are installed, read from the metadata of packages: importing one costs tens of megabytes.

A package of a third party adds a runtime with an entry point of the group `autoglm_edge_agent.backends`; the entry
point's name is the runtime's, its package's version the runtime's version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata

from autoglm_edge_protocol.manifest import Variant

GROUP = "autoglm_edge_agent.backends"

PACKAGES = {
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "onnxruntime-qnn",
        "onnxruntime-directml",
    ),
    "litert": ("ai-edge-litert",),
    "tflite": ("tflite-runtime",),
}
"""Runtime -> the packages that provide it."""

FORMATS = {"onnxruntime": "onnx", "litert": "tflite", "tflite": "tflite"}
"""What the runtimes that come with the agent read; of another one only the manifest knows."""


def installed_runtimes() -> dict[str, str]:
    """Return the installed runtimes with their versions."""
    found: dict[str, str] = {}
    for runtime, packages in PACKAGES.items():
        for package in packages:
            try:
                found.setdefault(runtime, metadata.version(package))
            except metadata.PackageNotFoundError:
                continue
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, point.dist.version if point.dist else "0")
    return found


def usable_runtimes(variant: Variant, installed: Mapping[str, str]) -> tuple[str, ...]:
    """Return the installed runtimes that run a variant, the manifest's first choice first."""
    return tuple(
        name
        for name, oldest in readers(variant)
        if name in installed and (oldest is None or _version(installed[name]) >= _version(oldest))
    )


def readers(variant: Variant) -> list[tuple[str, str | None]]:
    """Return each runtime that reads the variant's file, with its oldest version that does."""
    needs = variant.needs
    readers = [(needs.runtime, needs.min_version), *needs.alternatives.items()]
    # Of a third party's runtime only the manifest knows what it reads.
    return [(name, oldest) for name, oldest in readers if FORMATS.get(name, variant.format) == variant.format]


def _version(text: str) -> tuple[int, ...]:
    # Trailing zeros do not count: 1.20 is 1.20.0.
    numbers = [int(number) for number in re.findall(r"\d+", text.partition("+")[0])[:4]]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
