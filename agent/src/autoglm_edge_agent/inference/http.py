"""HTTP/1.1 on asyncio: accepts connections, counts them, and sees their orderly end."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from autoglm_edge_agent.inference.accepting import Acceptor
from autoglm_edge_agent.inference.http_connection import MAX_CONNECTIONS, READ_BYTES, STALL_S, Connection
from autoglm_edge_agent.inference.messages import Request, Response

log = logging.getLogger(__name__)

Answer = Callable[[Request], Awaitable[Response]]
AnswerAtOnce = Callable[[Request], "Response | None"]


class HttpServer:
    """Serves on inherited sockets until drained.

    `guard` sees each request of a TCP connection before its body is read, and answers those that may not ask. `at_once`
    is tried before `answer`: a task for each request takes longer than many a small model.
    """

    def __init__(
        self,
        answer: Answer,
        guard: Callable[[Request], Response | None] | None = None,
        tls: ssl.SSLContext | None = None,
        at_once: AnswerAtOnce = lambda _request: None,
    ) -> None:
        self.answer = answer
        self.at_once = at_once
        self.guard = guard
        self._tls = tls
        self._acceptor = Acceptor(self._accepted)
        self._accepting: set[asyncio.Task[Any]] = set()
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False
        self.buffered_bytes = 0
        self.scratch = memoryview(bytearray(READ_BYTES))

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on non-blocking, listening sockets, which stay the caller's."""
        self._acceptor.start(listeners)

    def stop_accepting(self) -> None:
        """Leave new connections to whoever else has the sockets; those that are open may bring one more request."""
        self.draining = True
        self._acceptor.stop()
        for connection in self._connections:
            connection.server_drains()

    async def drain(self) -> None:
        """Accept no more, and return when what was accepted is answered."""
        self.stop_accepting()
        while self._accepting or self._connections:
            if self._accepting:
                await asyncio.wait(self._accepting)
            await self._empty.wait()

    def joined(self, connection: Connection) -> bool:
        """Count a connection; False when there are too many."""
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) <= MAX_CONNECTIONS

    def left(self, connection: Connection) -> None:
        """Count a connection off."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _accepted(self, accepted: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(accepted))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        tls = self._tls if accepted.family != socket.AF_UNIX else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=STALL_S if tls is not None else None,
            )
        except (OSError, ssl.SSLError, asyncio.TimeoutError, TimeoutError) as problem:
            log.debug("a connection broke before its first request: %s", problem)
            accepted.close()
