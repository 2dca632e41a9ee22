"""A connection of the HTTP server: keep-alive, limits, slow clients, orderly end.

It is answered one request at a time. The body of known length is received where it stays: the tensors in it are not
copied. When the server drains, each connection may finish its request; an idle one is told to close with its next
answer, so that no client sees its request cut off.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Protocol

import numpy as np

from autoglm_edge_agent.inference.alarms import Alarm
from autoglm_edge_agent.inference.http_heads import Head, Refused, answer_head, check_head, cut_head, too_large
from autoglm_edge_agent.inference.messages import Request, Response, error
from autoglm_edge_agent.inference.peers import peer_of
from autoglm_edge_protocol.limits import LIMITS

log = logging.getLogger(__name__)

IDLE_S = 75.0
"""How long a connection may wait for its next request."""
STALL_S = 20.0
"""How long a client may pause within a request, or fail to read its answer."""
LEAST_READ_BYTES = 64 * 1024
"""Of an answer, in that time: a slow line may take minutes over a large one."""
REQUEST_S = 60.0
"""How long a whole request may take to arrive: a byte now and then does not hold a connection for ever."""
LINGER_S = 2.0
"""How long an idle connection of a draining server may still bring a request, and a refused one be read to its end."""
MAX_CONNECTIONS = 128
MAX_BUFFERED_BYTES = 4 * LIMITS.request_body_bytes
"""Bodies of all connections together that may be in memory; a request that would need more is answered 503."""
ALIGNMENT = 64
"""The first tensor of a body begins at a multiple of this, as runtimes like it."""
READ_BYTES = 256 * 1024
_SMALL_BYTES = 4096
_JOINED_BYTES = 64 * 1024
"""Answers up to this size leave in one write."""


class Server(Protocol):
    """What a connection needs of the server that it belongs to."""

    answer: Callable[[Request], Awaitable[Response]]
    at_once: Callable[[Request], Response | None]
    guard: Callable[[Request], Response | None] | None
    draining: bool
    buffered_bytes: int
    """Held for bodies by all connections together."""
    scratch: memoryview
    """Where heads are received: nothing stays in it from one call to the next, so that all connections share it."""

    def joined(self, connection: Any) -> bool:
        """Count a connection; False when there are too many."""

    def left(self, connection: Any) -> None:
        """Count a connection off."""


class Connection(asyncio.BufferedProtocol):
    """One connection: receives a request, has it answered, sends the answer, and begins again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._client: Hashable = None
        self._local = False
        self._crowded = False
        self._received = bytearray()
        """What came and belongs to no body that is being received."""
        self._head: Head | None = None
        self._last_head: Head | None = None
        """Was checked: a client that asks again most often sends the same."""
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
        self._unsent_bytes = 0
        """As of when that was looked at last."""
        self._paused = False
        """Nothing is received before what came is taken up."""
        self._taking_up = False
        """What came already is looked at in a moment."""
        self._began: float | None = None
        self._alarm = Alarm(self._loop, self._time_is_up)

    # what asyncio calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._transport = transport
        connection = transport.get_extra_info("socket")
        self._local = connection.family == socket.AF_UNIX
        self._client = peer_of(connection)
        self._crowded = not self._server.joined(self)
        self._alarm.within(LINGER_S if self._server.draining else IDLE_S)

    def connection_lost(self, problem: Exception | None) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._server.left(self)
        if self._task is not None:
            self._task.cancel()
        self._alarm.cancel()
        self._forget_body()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        if self._body is not None and self._body_bytes < len(self._body):
            return self._body[self._body_bytes :]
        return self._server.scratch

    def buffer_updated(self, count: int) -> None:
        """See `asyncio.BufferedProtocol`."""
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
        except Refused as refused:
            self._refuse(refused.response)

    def eof_received(self) -> bool:
        """See `asyncio.BufferedProtocol`."""
        self._ended = True
        if self._refused:
            self._transport.close()
        elif self._task is None and not self._taking_up:
            self._end()
        return not self._transport.is_closing()

    def pause_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._full = True
        self._alarm.within(STALL_S)

    def resume_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._full = False
        if self._task is None and not self._refused:
            self._next()

    # a request ----

    def _advance(self) -> None:
        """Go as far as what was received allows. Raises Refused."""
        if self._task is not None or self._full:
            if len(self._received) > READ_BYTES and not self._paused:
                self._paused = True
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
        data = cut_head(self._received)
        if data is None:
            if self._received:
                self._progressed()
            return False
        if self._last_head is None or data != self._last_head.data:
            self._last_head = self._new_head(data)
        head = self._last_head
        if not head.repeatable:
            self._last_head = None
        self._head = head
        if not (head.complete or head.chunked):
            self._make_room(head)
        if head.expects_continue and not head.complete:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _new_head(self, data: bytes) -> Head:
        """Parse and check a head. Raises Refused."""
        self._head = None
        self._keep_alive = False
        self._head_only = data.startswith(b"HEAD ")
        head = self._head = Head(data)
        self._keep_alive = head.keep_alive
        if self._crowded:
            raise Refused(error(503, f"more than {MAX_CONNECTIONS} connections", {"retry-after": "1"}))
        check_head(head)
        if self._server.guard is not None and not self._local:
            denied = self._server.guard(self._request(head, b""))
            if denied is not None:
                raise Refused(denied)
        return head

    def _make_room(self, head: Head) -> None:
        length = head.content_length
        if length <= min(_SMALL_BYTES, len(self._received)):
            # It is here already, and sooner copied once more than put where it would have to be for a runtime.
            self._body = memoryview(bytes(self._received[:length]))
            del self._received[:length]
            self._body_bytes = length
            self._buffer(length)
            return
        text = head.headers.get("inference-header-content-length", "0")
        first = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
        raw = np.empty(length + ALIGNMENT, np.uint8)
        start = -(raw.__array_interface__["data"][0] + first) % ALIGNMENT
        self._body = memoryview(raw.data)[start : start + length]
        taken = min(length, len(self._received))
        self._body[:taken] = self._received[:taken]
        del self._received[:taken]
        self._body_bytes = taken
        self._buffer(taken)
        if taken < length:
            self._progressed()

    def _take_chunks(self, head: Head) -> None:
        data = bytes(self._received)
        self._received.clear()
        head.feed(data)
        if not head.complete:
            self._progressed()
        self._chunked_bytes += len(data)
        self._buffer(len(data))
        if len(head.chunks) > LIMITS.request_body_bytes or self._chunked_bytes > 2 * LIMITS.request_body_bytes:
            raise Refused(too_large())

    def _buffer(self, count: int) -> None:
        """Count bytes that are held for a body. Raises Refused."""
        if self._server.buffered_bytes + count > MAX_BUFFERED_BYTES:
            text = f"requests of {MAX_BUFFERED_BYTES} bytes are being read already"
            raise Refused(error(503, text, {"retry-after": "1"}))
        self._server.buffered_bytes += count
        self._buffered_bytes += count

    def _forget_body(self) -> None:
        self._server.buffered_bytes -= self._buffered_bytes
        self._buffered_bytes = self._body_bytes = self._chunked_bytes = 0
        self._body = None
        self._head = None

    def _request(self, head: Head, body: memoryview | bytes) -> Request:
        return Request(head.method, head.path, head.headers, body, self._client)

    def _dispatch(self, head: Head, body: memoryview | bytes) -> None:
        self._began = None
        self._alarm.off()
        request = self._request(head, body)
        try:
            response = self._server.at_once(request)
        except Exception:
            response = _defect()
        if response is None:
            self._task = self._loop.create_task(self._answer(request))
        else:
            self._answered(response)

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._server.answer(request)
        except Exception:
            response = _defect()
        self._task = None
        self._answered(response)

    def _answered(self, response: Response) -> None:
        self._forget_body()
        close = self._ended or self._server.draining or not self._keep_alive
        self._send(response, close=close)
        if close:
            self._leave()
        elif not self._full:
            self._next()

    def _next(self) -> None:
        """Be ready for the next request, which may have come already."""
        self._alarm.within(LINGER_S if self._server.draining else IDLE_S)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._received:
            # Not here and now: other connections have their turn first, and many short requests are no recursion.
            self._taking_up = True
            self._loop.call_soon(self._take_up)

    def _take_up(self) -> None:
        self._taking_up = False
        if self._refused or self._transport.is_closing():
            return
        try:
            self._advance()
        except Refused as refused:
            self._refuse(refused.response)
        if self._ended and self._task is None and not (self._taking_up or self._refused):
            self._end()

    def _end(self) -> None:
        """The client sends no more, and all that it sent whole is answered."""
        if self._head is not None:
            self._refuse(error(400, "the request ends before its body does"))
        else:
            self._transport.close()

    # an answer ----

    def _send(self, response: Response, *, close: bool) -> None:
        pieces = response.pieces
        length = sum(piece.nbytes if isinstance(piece, memoryview) else len(piece) for piece in pieces)
        head = answer_head(response, length, close=close)
        if self._head_only:
            self._transport.write(head)
        elif length <= _JOINED_BYTES:
            self._transport.write(b"".join((head, *pieces)))
        else:
            self._transport.write(head)
            for piece in pieces:
                self._transport.write(piece)
        self._unsent_bytes = self._transport.get_write_buffer_size()

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
            self._alarm.within(STALL_S)
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client has gone: what was just written has brought its refusal
            self._transport.abort()
            return
        self._alarm.within(STALL_S if self._full else LINGER_S)

    # time ----

    def server_drains(self) -> None:
        """An idle connection may bring one more request, if it does so soon."""
        if self._task is None and self._head is None and not (self._received or self._refused or self._full):
            self._alarm.within(LINGER_S)

    def _progressed(self) -> None:
        """More of a request came: it may take a while, not for ever."""
        now = self._loop.time()
        if self._began is None:
            self._began = now
        self._alarm.within(min(STALL_S, self._began + REQUEST_S - now))

    def _is_being_read(self) -> bool:
        """Whether the client still takes what was written."""
        before, self._unsent_bytes = self._unsent_bytes, self._transport.get_write_buffer_size()
        return self._unsent_bytes > 0 and before - self._unsent_bytes >= LEAST_READ_BYTES

    def _time_is_up(self) -> None:
        if self._is_being_read():
            self._alarm.within(STALL_S)
            return
        if self._full or self._transport.is_closing():
            self._transport.abort()
            return
        # What was written and is still on its way to the client's side of the socket gets there.
        self._transport.close()
        self._alarm.within(STALL_S)


def _defect() -> Response:
    log.exception("a request could not be answered")
    return error(500, "internal error; the log of the agent tells more")
