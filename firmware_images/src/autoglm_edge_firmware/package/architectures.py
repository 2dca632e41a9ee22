"""What each of Debian's architectures is to pip, and what has no wheels there and so is Debian's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoglm_edge_firmware.errors import FirmwareError

OLDEST_GLIBC = 17
NEWEST_GLIBC = 35
"""Of Ubuntu 22.04, the oldest system that the package is for; Debian 12 has 2.36."""


@dataclass(frozen=True)
class Architecture:
    """One of Debian's architectures."""

    name: str
    machine: str
    """What the kernel calls it, and what markers of requirements ask for."""
    pythons: tuple[str, ...]
    """Versions of Python that the package is made for when nothing else is asked for."""
    from_debian: Mapping[str, str]
    """Requirements that are not packed, and the Debian packages that the package depends on instead."""

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of wheels that run there, the newest first."""
        glibc = tuple(f"manylinux_2_{minor}_{self.machine}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1))
        return (*glibc, f"manylinux2014_{self.machine}", f"linux_{self.machine}")


_BOTH_RELEASES = ("3.11", "3.13")
"""Debian 12 and 13, and Raspberry Pi OS made of them."""

ARCHITECTURES: dict[str, Architecture] = {
    "amd64": Architecture("amd64", "x86_64", _BOTH_RELEASES, {}),
    "arm64": Architecture("arm64", "aarch64", _BOTH_RELEASES, {}),
    "armhf": Architecture(
        "armhf",
        "armv7l",
        ("3.11",),  # the last with a TFLite runtime for 32 bits
        {
            "cffi": "python3-cffi-backend",
            "httptools": "python3-httptools",
            "numpy": "python3-numpy",
            "psutil": "python3-psutil",
        },
    ),
}


def architecture(name: str) -> Architecture:
    """Return an architecture by its name. Raises FirmwareError."""
    if name not in ARCHITECTURES:
        raise FirmwareError(f"there is no package for {name!r}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
