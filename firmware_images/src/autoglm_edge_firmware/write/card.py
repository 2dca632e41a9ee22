"""A card as bytes that are written and read back: the port, and the one of real cards and plain files."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from autoglm_edge_firmware.errors import CardRefused
from autoglm_edge_firmware.privileges import is_root

if sys.platform == "linux":
    import fcntl

_FLUSH_BUFFERS = 0x1261  # BLKFLSBUF of <linux/fs.h>
_GONE_NAMES = ("EIO", "ENODEV", "ENXIO", "ENOMEDIUM", "EREMOTEIO")
# By name, as only Linux knows all of them, and this is read wherever the command starts.
_GONE = {number for number, name in errno.errorcode.items() if name in _GONE_NAMES}
_PROTECTED = {errno.EROFS, errno.EACCES, errno.EPERM}


class Card(Protocol):
    """What is written. Every method raises OSError."""

    size_bytes: int

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data`."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes."""

    def settle(self) -> None:
        """Wait until all is on the card, and forget what memory holds of it: reading then asks the card."""


class OpenCard:
    """A block device or a plain file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size_bytes = os.lseek(descriptor, 0, os.SEEK_END)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            written = os.write(self._descriptor, view)
            view, offset = view[written:], offset + written

    def read_at(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes."""
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        return os.read(self._descriptor, size)

    def settle(self) -> None:
        """Wait until all is on the card."""
        os.fsync(self._descriptor)
        if sys.platform == "linux":
            with suppress(OSError):  # plain files have no buffers of their own
                fcntl.ioctl(self._descriptor, _FLUSH_BUFFERS, 0)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def opened(path: Path) -> Iterator[OpenCard]:
    """Open a card for nobody but us.

    Raises:
        CardRefused: it may not be written, or somebody uses it.
    """
    # Of block devices, O_EXCL fails while one of its file systems is mounted.
    alone = os.O_EXCL if stat.S_ISBLK(path.stat().st_mode) else 0
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | alone)
    except OSError as error:
        raise refused(path, error) from None
    try:
        yield OpenCard(descriptor)
    finally:
        os.close(descriptor)


def refused(path: Path, error: OSError) -> CardRefused:
    """Return what the system's error means for somebody who stands before the reader."""
    if error.errno == errno.EBUSY:
        return CardRefused(path, "in use: unmount it first")
    if error.errno in _PROTECTED and not is_root():
        return CardRefused(path, "may not be written by you: run this with sudo")
    if error.errno in _PROTECTED:
        return CardRefused(path, "write-protected: move the switch at the card's side")
    if error.errno in _GONE:
        return CardRefused(
            path, "gone, or broken: the card was pulled out, or fails; it is not bootable, write it again"
        )
    if error.errno == errno.ENOSPC:
        return CardRefused(path, "too small for the image")
    return CardRefused(path, f"cannot be written: {error.strerror or error}")
