"""The disks of this machine, as lsblk tells, and which of them may be written. Pure, but for asking lsblk."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_edge_firmware.errors import CardRefused
from autoglm_edge_firmware.programs import run

_COLUMNS = "NAME,PATH,SIZE,TYPE,RM,RO,HOTPLUG,TRAN,VENDOR,MODEL,SERIAL,MOUNTPOINTS"
_SYSTEM = {"/", "/boot", "/boot/efi", "/boot/firmware", "/home", "/usr", "/var", "[SWAP]"}
_WHOLE = {"disk", "loop", "file"}
_IN_USE = {"crypt", "lvm", "raid0", "raid1", "raid5", "raid6", "raid10", "mpath"}


@dataclass(frozen=True)
class Disk:
    """A whole disk, a card in a reader, or a plain file that stands for one."""

    name: str
    path: Path
    size_bytes: int
    kind: str = "disk"
    model: str = ""
    serial: str = ""
    removable: bool = False
    read_only: bool = False
    mounts: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    """What else uses it: encryption, volumes, arrays."""


def parse(text: str) -> tuple[Disk, ...]:
    """Return the disks in lsblk's JSON."""
    return tuple(_disk(entry) for entry in json.loads(text).get("blockdevices", ()))


def _disk(entry: dict[str, Any]) -> Disk:
    tree = list(_below(entry))
    transport = entry.get("tran") or ""
    # Built-in readers of SD cards say of themselves that they are not removable.
    removable = bool(entry.get("rm") or entry.get("hotplug")) or transport in ("usb", "mmc")
    return Disk(
        name=entry["name"],
        path=Path(entry["path"]),
        size_bytes=int(entry.get("size") or 0),
        kind=entry.get("type") or "",
        model=" ".join(filter(None, ((entry.get(key) or "").strip() for key in ("vendor", "model")))),
        serial=(entry.get("serial") or "").strip(),
        removable=removable or entry["name"].startswith("mmcblk"),
        read_only=bool(entry.get("ro")),
        mounts=tuple(mount for each in tree for mount in each.get("mountpoints") or () if mount),
        users=tuple(each["name"] for each in tree if each.get("type") in _IN_USE),
    )


def _below(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield entry
    for child in entry.get("children", ()):
        yield from _below(child)


def installed() -> tuple[Disk, ...]:
    """Return the disks of this machine.

    Raises:
        ProgramFailed: lsblk is missing.
    """
    return parse(run("lsblk", "--json", "--bytes", "--output", _COLUMNS).decode())


def candidates(disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """Return the disks that a user may mean."""
    return tuple(disk for disk in disks if disk.kind == "disk" and refusal(disk, 0) is None)


def find(path: Path) -> Disk:
    """Return the disk, or the plain file, that a user names.

    Raises:
        CardRefused: there is none.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise CardRefused(path, "there is no such device: is the card in the reader?") from None
    if stat.S_ISREG(status.st_mode):
        return Disk(path.name, path, status.st_size, "file", "a plain file", removable=True)
    if not stat.S_ISBLK(status.st_mode):
        raise CardRefused(path, "neither a card nor a file")
    real = path.resolve()
    found = next((disk for disk in installed() if disk.path == real), None)
    if found is None:
        raise CardRefused(path, "a partition, or no disk of its own: give the whole card, such as /dev/sdb")
    return found


def refusal(disk: Disk, needed_bytes: int) -> str | None:
    """Return why a disk is not written, or None: it may be."""
    fixed = disk.kind == "disk" and not disk.removable
    reasons = (
        (disk.kind not in _WHOLE, f"a {disk.kind or 'device'}, not a whole card: give the whole one, such as /dev/sdb"),
        (any(mount in _SYSTEM for mount in disk.mounts), "the disk of the running system: it is never written"),
        (bool(disk.mounts), f"mounted at {', '.join(disk.mounts)}: unmount it first"),
        (bool(disk.users), f"in use by {', '.join(disk.users)}: stop that first"),
        (fixed, "not removable: only cards and sticks are written"),
        (disk.size_bytes == 0, "a reader without a card"),
        (disk.read_only, "write-protected: move the switch at the card's side"),
        (disk.size_bytes < needed_bytes, f"too small: {disk.size_bytes} bytes, and the image needs {needed_bytes}"),
    )
    return next((text for applies, text in reasons if applies), None)


def must_be_writable(disk: Disk, needed_bytes: int) -> None:
    """Refuse a disk that is not to be written.

    Raises:
        CardRefused: with why.
    """
    if reason := refusal(disk, needed_bytes):
        raise CardRefused(disk.path, reason)
