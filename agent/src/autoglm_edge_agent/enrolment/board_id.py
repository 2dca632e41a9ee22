"""What tells this board from all others, as a digest: a serial number is nobody's business, and differs in each fleet.

A card that is copied takes with it everything that is written on it, /etc/machine-id too; what the maker has written
into the board stays there: the serial number of the device tree, else the address of a network interface of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

_ADDRESS = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_LOCAL = 0x02
"""The bit of a network address that says that it was made up (IEEE 802)."""


def board_id(fleet: str, root: Path = Path("/")) -> str | None:
    """Return the digest, None where the board has nothing that could be told."""
    text = _serial(root) or _interface(root)
    if text is None:
        return None
    return hashlib.sha256(f"autoglm-edge board\0{fleet}\0{text}".encode()).hexdigest()[:32]


def _serial(root: Path) -> str | None:
    # Two names of one file: a sandbox may hide the second, and a board must not seem another in a sandbox.
    for name in ("sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number"):
        with contextlib.suppress(OSError):
            serial = (root / name).read_bytes().strip(b"\0 \n")
            return serial.decode(errors="replace") if serial.strip(b"0") else None
    return None


def _interface(root: Path) -> str | None:
    """Return the address of the first interface that is a device; those that a program has made are none."""
    for path in sorted((root / "sys/class/net").glob("*/address")):
        try:
            address = path.read_text().strip().lower()
        except OSError:
            continue
        made_up = not _ADDRESS.fullmatch(address) or int(address[:2], 16) & _LOCAL
        if (path.parent / "device").exists() and (not made_up or address.startswith("52:54:00")):
            return address  # 52:54:00 is QEMU's, made up and yet given to one machine
    return None
