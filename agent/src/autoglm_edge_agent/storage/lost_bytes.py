"""Bytes that a failing medium does not give back: as good as missing, and writing them anew is all that helps."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

log = logging.getLogger(__name__)

_LOST = {errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)}
"""A block that cannot be read any more, or of which the file system knows that it is another."""


def is_lost(error: OSError) -> bool:
    """Whether this is what reading lost bytes ends with."""
    return error.errno in _LOST


def read_kept(path: Path) -> bytes:
    """Return a file's bytes. Raises OSError; FileNotFoundError also where the file is there and its bytes are lost."""
    try:
        return path.read_bytes()
    except OSError as error:
        if not is_lost(error):
            raise
        log.warning("%s cannot be read any more: %s", path, error)
        raise FileNotFoundError(errno.ENOENT, "lost by the disk", str(path)) from None
