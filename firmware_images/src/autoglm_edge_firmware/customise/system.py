"""What system an image holds, and how it can be made to install something at its first boot: found by looking at it.

Raspberry Pi's own imager does it in three ways, one after another in the history of its system, and each image knows
its own. The fourth needs nothing of the image but systemd, and is that of Debian, Ubuntu and NVIDIA's root folder.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_firmware.errors import ImageUnusable
from autoglm_edge_firmware.media.ext4 import Ext4Tree
from autoglm_edge_firmware.media.opened import Medium, open_medium
from autoglm_edge_firmware.media.trees import FolderTree, Tree, exists, text

BOOT_MOUNTS = ("/boot/firmware", "/boot")
_DEFAULT_MOUNT = BOOT_MOUNTS[0]


class Way(enum.StrEnum):
    """How the first boot is told to install the agent."""

    PRESEED = "preseed"
    CLOUD_INIT = "cloud-init"
    FIRSTRUN = "firstrun"
    UNIT = "unit"


@dataclass(frozen=True)
class System:
    """An operating system on a card, in an image or in a folder."""

    where: Path
    boot: Tree | None
    root: Tree | None
    boot_mount: str
    name: str
    architecture: str
    """As Debian calls it; empty where it is not known."""
    ways: tuple[Way, ...]
    """That are possible, the image's own one first."""


def find(where: Path) -> System:
    """Look at a card, an uncompressed image, or the folder of a root.

    Raises:
        ImageUnusable: there is no system that can be customised.
    """
    if where.is_dir():
        return _system(where, None, FolderTree(where))
    medium = open_medium(where)
    root = _root_of(medium)
    if root is not None:
        root.must_be_at_rest()
    return _system(where, _boot_of(medium, root), root)


def _root_of(medium: Medium) -> Ext4Tree | None:
    return next((tree for tree in medium.exts() if exists(tree, "/etc/os-release") or exists(tree, "/etc/fstab")), None)


def _boot_of(medium: Medium, root: Tree | None) -> Tree | None:
    for tree in medium.fats():
        names = set(tree.names("/"))
        if names & {"cmdline.txt", "user-data", "meta-data", "config.txt", "rpi-preseed.toml", "extlinux"}:
            return tree
    # Without a root that says where FAT partitions are mounted, and without any of these, it is the firmware's alone.
    mounted = root is not None and _mount_of_boot(root) in BOOT_MOUNTS
    return next(iter(medium.fats()), None) if mounted else None


def _system(where: Path, boot: Tree | None, root: Tree | None) -> System:
    ways = tuple(_ways(boot, root))
    if not ways:
        raise ImageUnusable(
            where,
            "an unknown layout: neither a boot partition of Raspberry Pi or cloud-init, nor an ext4 root with systemd; "
            "install the agent's package on the running board instead",
        )
    release = text(root, "/etc/os-release") if root else ""
    return System(
        where,
        boot,
        root,
        (root and _mount_of_boot(root)) or _DEFAULT_MOUNT,
        _field(release, "PRETTY_NAME") or "a system that cannot be looked into",
        _architecture(root) if root else "",
        ways,
    )


def _ways(boot: Tree | None, root: Tree | None) -> Iterator[Way]:
    names = set(boot.names("/")) if boot else set()
    if "rpi-preseed.toml" in names or (boot and root and exists(root, "/usr/bin/rpi-preseed")):
        yield Way.PRESEED
    if names & {"user-data", "meta-data"}:
        yield Way.CLOUD_INIT
    if "cmdline.txt" in names:
        yield Way.FIRSTRUN
    if root and (exists(root, "/usr/lib/systemd/systemd") or exists(root, "/lib/systemd/systemd")):
        yield Way.UNIT


def _mount_of_boot(root: Tree) -> str | None:
    for line in text(root, "/etc/fstab").splitlines():
        fields = line.split("#")[0].split()
        if len(fields) >= 3 and fields[2] in ("vfat", "auto") and fields[1].startswith("/boot"):
            return fields[1]
    return None


def _field(release: str, name: str) -> str:
    match = re.search(rf'^{name}="?([^"\n]*)"?$', release, re.MULTILINE)
    return match[1] if match else ""


def _architecture(root: Tree) -> str:
    for stanza in text(root, "/var/lib/dpkg/status").split("\n\n"):
        if stanza.startswith("Package: dpkg\n"):
            match = re.search(r"^Architecture: (\S+)$", stanza, re.MULTILINE)
            return match[1] if match else ""
    return ""
