"""Take out of a root what belongs to the machine or the moment that made it, and what would serve two boards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_OF_THE_MAKING = (
    "boot/firmware/*.new",
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "root/.wget-hsts",
    "run/*",
    "tmp/*",
    "usr/lib/python3*/**/__pycache__",
    "usr/share/python3/**/__pycache__",
    "var/cache/apt/*.bin",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/catalog/database",
    "var/tmp/*",
)
"""Compiled modules of Debian's Python are among them: their bytes depend on the order in which they were compiled."""


def settle(root: Path) -> None:
    """Bring a root into the state that depends on its packages alone.

    Raises:
        OSError: a file cannot be removed.
    """
    for pattern in _OF_THE_MAKING:
        for found in sorted(root.glob(pattern)):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()
    for log in sorted((root / "var/log").rglob("*")):
        if not log.is_dir():  # programs expect their folders
            log.unlink()


def still(root: Path, epoch: int) -> None:
    """Give every file the time of its last change, and none a later one than `epoch`."""
    for folder, names, files in os.walk(root, topdown=False):
        for name in (*names, *files):
            _still(Path(folder) / name, epoch)
    _still(root, epoch)


def _still(path: Path, epoch: int) -> None:
    time = min(int(path.lstat().st_mtime), epoch)
    os.utime(path, (time, time), follow_symlinks=False)


def content_bytes(root: Path) -> int:
    """Return how much the files of a root need in blocks of 4 KiB."""
    total = 0
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            status = (Path(folder) / name).lstat()
            total += 4096 + -(-status.st_size // 4096) * 4096
    return total
