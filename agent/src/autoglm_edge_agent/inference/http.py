"""HTTP/1.1 on asyncio, with llhttp (httptools) as the parser of heads: keep-alive, limits, slow clients, orderly end.

A connection is answered one request at a time. The body of known length is received where it stays: the tensors in it
are not copied. When the server drains, each connection may finish its request; an idle one is told to close with its
next answer, so that no client sees its request cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import math
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

import httptools
import numpy as np

from autoglm_edge_agent.inference.accepting import Acceptor
from autoglm_edge_agent.inference.messages import Request, Response, error
from autoglm_edge_agent.inference.peers import peer_of
from autoglm_edge_protocol.limits import LIMITS

log = logging.getLogger(__name__)

Answer = Callable[[Request], Awaitable[Response]]

IDLE_S = 75.0
"""How long a connection may wait for its next request."""
STALL_S = 20.0
"""How long a client may pause within a request, or fail to read its answer."""
REQUEST_S = 60.0
"""How long a whole request may take to arrive: a byte now and then does not hold a connection for ever."""
LINGER_S = 2.0
"""How long an idle connection of a draining server may still bring a request, and a refused one be read to its end."""
MAX_CONNECTIONS = 128
MAX_BUFFERED_BYTES = 4 * LIMITS.request_body_bytes
"""Bodies of all connections together that may be in memory; a request that would need more is answered 503."""
ALIGNMENT = 64
"""The first tensor of a body begins at a multiple of this, as runtimes like it."""
_READ_BYTES = 256 * 1024
_JOINED_BYTES = 64 * 1024
"""Answers up to this size leave in one write."""
_HEAD_END = b"\r\n\r\n"
_HUGE_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*\d{16}", re.IGNORECASE)


class _Refused(Exception):
    """The request is answered with an error, and the connection ends."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class HttpServer:
    """Serves on inherited sockets until drained.

    `guard` sees each request of a TCP connection before its body is read, and answers those that may not ask.
    """

    def __init__(
        self,
        answer: Answer,
        guard: Callable[[Request], Response | None] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.guard = guard
        self._tls = tls
        self._acceptor = Acceptor(self._accepted)
        self._accepting: set[asyncio.Task[Any]] = set()
        self._connections: set[_Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False
        self.buffered_bytes = 0
        self.scratch = memoryview(bytearray(_READ_BYTES))
        """Where heads are received: nothing stays in it from one call to the next, so that all connections share it."""

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

    def joined(self, connection: _Connection) -> bool:
        """Count a connection; False when there are too many."""
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) <= MAX_CONNECTIONS

    def left(self, connection: _Connection) -> None:
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
                lambda: _Connection(self),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=STALL_S if tls is not None else None,
            )
        except (OSError, ssl.SSLError, asyncio.TimeoutError, TimeoutError) as problem:
            log.debug("a connection broke before its first request: %s", problem)
            accepted.close()


class _Head:
    """What the parser tells of one request's head, and of its body where that comes in chunks."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.chunks = bytearray()
        """Joined at once: of many pieces of a byte each most of the memory would be their own bookkeeping."""
        self.complete = False
        self.parser = httptools.HttpRequestParser(self)
        self.upgrade = False
        self.keep_alive = False

    def feed(self, data: bytes) -> None:
        """Parse more. Raises _Refused."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgrade = True
        except httptools.HttpParserError as problem:
            if self.headers.get("transfer-encoding", "chunked").lower() != "chunked":
                raise _Refused(error(501, "the only transfer coding known here is chunked")) from None
            raise _Refused(error(400, f"not HTTP/1.1 as it should be: {problem}")) from None

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.keep_alive = bool(self.parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.chunks += body

    def on_message_complete(self) -> None:
        self.complete = True


class _Connection(asyncio.BufferedProtocol):
    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._client: Hashable = None
        self._local = False
        self._crowded = False
        self._received = bytearray()
        """What came and belongs to no body that is being received."""
        self._head: _Head | None = None
        self._head_only = False
        self._keep_alive = True
        self._body: memoryview | None = None
        self._body_bytes = 0
        self._chunked_bytes = 0
        self._buffered_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        """The client sends no more."""
        self._refused = False
        self._full = False
        """The client does not read as fast as we write."""
        self._began: float | None = None
        self._deadline = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    # what asyncio calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        connection = transport.get_extra_info("socket")
        self._local = connection.family == socket.AF_UNIX
        self._client = peer_of(connection)
        self._crowded = not self._server.joined(self)
        self._expect_within(LINGER_S if self._server.draining else IDLE_S)

    def connection_lost(self, problem: Exception | None) -> None:
        self._server.left(self)
        if self._task is not None:
            self._task.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        self._forget_body()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body is not None and self._body_bytes < len(self._body):
            return self._body[self._body_bytes :]
        return self._server.scratch

    def buffer_updated(self, count: int) -> None:
        if self._refused:
            return
        try:
            if self._body is not None and self._body_bytes < len(self._body):
                self._body_bytes += count
                self._buffer(count)
                self._progressed()
            else:
                self._received += self._server.scratch[:count]
            self._advance()
        except _Refused as refused:
            self._refuse(refused.response)

    def eof_received(self) -> bool:
        self._ended = True
        if self._refused or self._task is not None:
            if self._refused:
                self._transport.close()
            return True
        if self._head is not None:
            self._refuse(error(400, "the request ends before its body does"))
            return True
        return False

    def pause_writing(self) -> None:
        self._full = True
        self._expect_within(STALL_S)

    def resume_writing(self) -> None:
        self._full = False
        if self._task is None and not self._refused:
            self._next()

    # a request ----

    def _advance(self) -> None:
        """Go as far as what was received allows. Raises _Refused."""
        if self._task is not None or self._full:
            if len(self._received) > _READ_BYTES:
                self._transport.pause_reading()
            return
        if self._head is None and not self._take_head():
            return
        head = self._head
        assert head is not None
        if self._body is not None:
            if self._body_bytes == len(self._body):
                self._dispatch(head, self._body)
            return
        if self._received and not head.complete:
            self._take_chunks(head)
        if head.complete:
            self._dispatch(head, memoryview(head.chunks))

    def _take_head(self) -> bool:
        # Empty lines before a request are to be overlooked. Source: RFC 9112, 2.2.
        while self._received[:2] == b"\r\n":
            del self._received[:2]
        end = self._received.find(_HEAD_END)
        if end < 0 or end > LIMITS.request_head_bytes:
            if len(self._received) > LIMITS.request_head_bytes:
                raise _Refused(error(431, f"the head has more than {LIMITS.request_head_bytes} bytes"))
            if self._received:
                self._progressed()
            return False
        data = bytes(self._received[: end + len(_HEAD_END)])
        del self._received[: len(data)]
        self._head_only = data.startswith(b"HEAD ")
        if _HUGE_LENGTH.search(data):
            raise _Refused(_too_large())
        head = _Head()
        head.feed(data)
        self._head = head
        self._keep_alive = head.keep_alive
        self._check(head)
        return True

    def _check(self, head: _Head) -> None:
        """Look at what the head says of the body, and make room for it. Raises _Refused."""
        if head.upgrade:
            # CONNECT, or a wish for another protocol: what follows would be that protocol's.
            head.complete = True
            self._keep_alive = False
        if self._crowded:
            raise _Refused(error(503, f"more than {MAX_CONNECTIONS} connections", {"retry-after": "1"}))
        if head.parser.get_http_version() == "1.1" and "host" not in head.headers:
            raise _Refused(error(400, "the header Host is missing"))
        coding = head.headers.get("transfer-encoding")
        if "content-encoding" in head.headers and head.headers["content-encoding"].lower() != "identity":
            raise _Refused(error(415, "send the body without a content coding"))
        if self._server.guard is not None and not self._local:
            denied = self._server.guard(self._request(head, b""))
            if denied is not None:
                raise _Refused(denied)
        if head.complete:
            return
        if coding is not None:
            # Where one message ends in what came is the parser's secret: what follows it is not answered.
            self._keep_alive = False
        else:
            self._make_room(head)
        if head.headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _make_room(self, head: _Head) -> None:
        length = int(head.headers.get("content-length", "0"))
        if length > LIMITS.request_body_bytes:
            raise _Refused(_too_large())
        text = head.headers.get("inference-header-content-length", "0")
        first = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
        raw = np.empty(length + ALIGNMENT, np.uint8)
        start = -(raw.ctypes.data + first) % ALIGNMENT
        self._body = memoryview(raw.data)[start : start + length]
        taken = min(length, len(self._received))
        self._body[:taken] = self._received[:taken]
        del self._received[:taken]
        self._body_bytes = taken
        self._buffer(taken)
        self._progressed()

    def _take_chunks(self, head: _Head) -> None:
        data = bytes(self._received)
        self._received.clear()
        head.feed(data)
        if not head.complete:
            self._progressed()
        self._chunked_bytes += len(data)
        self._buffer(len(data))
        if len(head.chunks) > LIMITS.request_body_bytes or self._chunked_bytes > 2 * LIMITS.request_body_bytes:
            raise _Refused(_too_large())

    def _buffer(self, count: int) -> None:
        """Count bytes that are held for a body. Raises _Refused."""
        if self._server.buffered_bytes + count > MAX_BUFFERED_BYTES:
            text = f"requests of {MAX_BUFFERED_BYTES} bytes are being read already"
            raise _Refused(error(503, text, {"retry-after": "1"}))
        self._server.buffered_bytes += count
        self._buffered_bytes += count

    def _forget_body(self) -> None:
        self._server.buffered_bytes -= self._buffered_bytes
        self._buffered_bytes = self._body_bytes = self._chunked_bytes = 0
        self._body = None
        self._head = None

    def _request(self, head: _Head, body: memoryview | bytes) -> Request:
        method = head.parser.get_method().decode("ascii", "replace")
        return Request(method, head.target.decode("ascii", "replace"), head.headers, body, self._client)

    def _dispatch(self, head: _Head, body: memoryview | bytes) -> None:
        self._began = None
        self._deadline = math.inf
        self._task = self._loop.create_task(self._answer(self._request(head, body)))

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._server.answer(request)
        except Exception:
            log.exception("a request could not be answered")
            response = error(500, "internal error; the log of the agent tells more")
        self._task = None
        self._forget_body()
        close = self._ended or self._server.draining or not self._keep_alive
        self._send(response, close=close)
        if close:
            self._leave()
        elif not self._full:
            self._next()

    def _next(self) -> None:
        """Be ready for the next request, which may have come already."""
        self._expect_within(LINGER_S if self._server.draining else IDLE_S)
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()
        try:
            self._advance()
        except _Refused as refused:
            self._refuse(refused.response)

    # an answer ----

    def _send(self, response: Response, *, close: bool) -> None:
        pieces = response.pieces
        length = sum(piece.nbytes if isinstance(piece, memoryview) else len(piece) for piece in pieces)
        more = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        if close:
            more += "connection: close\r\n"
        if response.status == 503 and "retry-after" not in response.headers:
            more += "retry-after: 1\r\n"
        head = (
            f"HTTP/1.1 {response.status} {http.HTTPStatus(response.status).phrase}\r\n"
            f"content-type: {response.content_type}\r\ncontent-length: {length}\r\n{more}\r\n"
        ).encode("latin-1", "replace")
        if self._head_only:
            self._transport.write(head)
        elif length <= _JOINED_BYTES:
            self._transport.write(b"".join((head, *pieces)))
        else:
            self._transport.write(head)
            for piece in pieces:
                self._transport.write(piece)

    def _refuse(self, response: Response) -> None:
        """Answer an error and end the connection, so that the client has a chance to read it.

        Closed with bytes unread, the connection would be reset, and the answer lost with it.
        """
        self._refused = True
        self._forget_body()
        self._send(response, close=True)
        self._leave()

    def _leave(self) -> None:
        """Send no more, and read what still comes for a moment."""
        self._refused = True
        self._received.clear()
        if self._ended or not self._transport.can_write_eof():
            self._deadline = math.inf
            self._expect_within(STALL_S)
            self._transport.close()
            return
        self._transport.write_eof()
        self._expect_within(STALL_S if self._full else LINGER_S)

    # time ----

    def server_drains(self) -> None:
        """An idle connection may bring one more request, if it does so soon."""
        if self._task is None and self._head is None and not (self._received or self._refused or self._full):
            self._expect_within(LINGER_S)

    def _progressed(self) -> None:
        """More of a request came: it may take a while, not for ever."""
        now = self._loop.time()
        if self._began is None:
            self._began = now
        self._expect_within(min(STALL_S, self._began + REQUEST_S - now))

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._set_alarm(self._deadline)

    def _set_alarm(self, at: float) -> None:
        self._alarm_at = at
        self._alarm = self._loop.call_at(at, self._rings)

    def _rings(self) -> None:
        """The alarm is set once and looked at when it rings: most deadlines move before that."""
        self._alarm, self._alarm_at = None, math.inf
        if self._loop.time() >= self._deadline:
            self._time_is_up()
        elif self._deadline < math.inf:
            self._set_alarm(self._deadline)

    def _time_is_up(self) -> None:
        if self._full or self._transport.is_closing():
            self._transport.abort()
            return
        # What was written and is still on its way to the client's side of the socket gets there.
        self._transport.close()
        self._expect_within(STALL_S)


def _too_large() -> Response:
    return error(413, f"the body has more than {LIMITS.request_body_bytes} bytes")
