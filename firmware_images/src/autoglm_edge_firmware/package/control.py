"""What the package says of itself: its control file, with what it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from autoglm_edge_firmware.package.architectures import NEWEST_GLIBC, Architecture

NAME = "autoglm-edge-agent"


@dataclass(frozen=True)
class Described:
    """What the control file is written from."""

    version: str
    architecture: Architecture
    pythons: tuple[str, ...]
    installed_bytes: int


def control_text(described: Described) -> str:
    """Return the file `control` (deb-control(5))."""
    fields = {
        "Package": NAME,
        "Version": described.version,
        "Architecture": described.architecture.name,
        "Maintainer": "The autoglm-edge founders <autoglm-edge@localhost>",
        "Installed-Size": str(-(-described.installed_bytes // 1024)),
        "Depends": ", ".join(depends(described.architecture, described.pythons)),
        "Section": "net",
        "Priority": "optional",
        "Description": "device agent of autoglm-edge: signed models over MQTT, served to local programs\n"
        " Pulls model bundles that its fleet's owner has signed, measures how they run best on this\n"
        " board, serves them with the Open Inference Protocol, and goes back to the model before\n"
        " when a new one does not keep to its terms.",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def depends(architecture: Architecture, pythons: Sequence[str]) -> tuple[str, ...]:
    """Return what the package depends on."""
    return (
        *python_range(pythons),
        f"libc6 (>= 2.{NEWEST_GLIBC})",
        "libgcc-s1",
        "libstdc++6",
        "passwd",
        "systemd (>= 249)",
        *sorted(architecture.from_debian.values()),
    )


def python_range(pythons: Sequence[str]) -> tuple[str, ...]:
    """Return dependencies that hold for these minor versions of Python and for no other.

    The set is a range with gaps; each gap is an alternative: older than it begins, or newer than it ends.
    """
    minors = sorted(int(python.partition(".")[2]) for python in pythons)
    gaps = [(low + 1, high) for low, high in pairwise(minors) if high > low + 1]
    return (
        f"python3 (>= 3.{minors[0]})",
        f"python3 (<< 3.{minors[-1] + 1})",
        *(f"python3 (<< 3.{begin}) | python3 (>= 3.{end})" for begin, end in gaps),
    )
