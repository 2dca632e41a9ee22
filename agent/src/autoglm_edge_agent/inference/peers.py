"""Who is at the other end of a connection: what the turns of clients go by."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Hashable

_CREDENTIALS = struct.Struct("3i")


def peer_of(connection: socket.socket) -> Hashable:
    """Return the process at the other end of a Unix socket; elsewhere a connection is a client of its own."""
    if connection.family == socket.AF_UNIX and sys.platform == "linux":
        with contextlib.suppress(OSError):
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return ("process", _CREDENTIALS.unpack(raw)[0])
    return ("connection", id(connection))
