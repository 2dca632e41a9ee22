"""Accepting on sockets that several workers have: until told to stop, and through a lack of file descriptors.

Not asyncio.start_server: it needs some turns of its loop from an accepted connection to a task, and one that is on its
way when the server is closed is thrown away. Here it is either still the kernel's or taken.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

ACCEPT_PAUSE_S = 1.0
"""After the process ran out of file descriptors."""


class Acceptor:
    """Hands each accepted connection to `take`, in the running event loop."""

    def __init__(self, take: Callable[[socket.socket], None]) -> None:
        self._take = take
        self._listeners: list[socket.socket] = []

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on non-blocking, listening sockets, which stay the caller's."""
        self._listeners = list(listeners)
        for listener in listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def stop(self) -> None:
        """Leave new connections to whoever else has the sockets."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
        self._listeners = []

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker on the same socket was faster, or the client has gone
        except OSError as problem:
            log.warning("cannot accept connections for a moment: %s", problem)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(ACCEPT_PAUSE_S, self._resume, listener)
            return
        self._take(accepted)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)
