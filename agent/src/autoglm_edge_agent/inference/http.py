"""HTTP/1.1 on asyncio streams, with h11 as the parser: keep-alive, limits, slow clients, orderly end.

A connection is answered one request at a time. When the server drains, each connection may finish its request; an idle
one is told to close with its next answer, so that no client sees its request cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

import h11

from autoglm_edge_agent.inference.oip import Response
from autoglm_edge_protocol.limits import LIMITS

log = logging.getLogger(__name__)

Answer = Callable[[str, str, bytes], Awaitable[Response]]

IDLE_S = 75.0
"""How long a connection may wait for its next request."""
STALL_S = 20.0
"""How long a client may pause within a request, or fail to read its answer."""
REQUEST_S = 60.0
"""How long a whole request may take to arrive: a byte now and then does not hold a connection for ever."""
LINGER_S = 2.0
"""How long an idle connection of a draining server may still bring a request, and a refused one be read to its end."""
ACCEPT_PAUSE_S = 1.0
"""After the process ran out of file descriptors."""
MAX_CONNECTIONS = 128
MAX_BUFFERED_BYTES = 4 * LIMITS.request_body_bytes
"""Bodies of all connections together that may be in memory; a request that would need more is answered 503."""
_READ_BYTES = 64 * 1024


class _Buffer:
    """The bytes of all bodies that are in memory."""

    def __init__(self) -> None:
        self._held_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Count more bytes; False, and nothing counted, when they are too many."""
        if self._held_bytes + size_bytes > MAX_BUFFERED_BYTES:
            return False
        self._held_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Count bytes off that are no longer held."""
        self._held_bytes -= size_bytes


class HttpServer:
    """Serves on inherited sockets until drained."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listeners: list[socket.socket] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._buffer = _Buffer()

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on non-blocking, listening sockets, which stay the caller's."""
        # Not asyncio.start_server: it needs some turns of its loop from an accepted connection to a task, and one that
        # is on its way when the server is closed is thrown away. Here it is either still the kernel's or has a task.
        self._listeners = list(listeners)
        for listener in listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def stop_accepting(self) -> None:
        """Leave new connections to whoever else has the sockets; those that are open may bring one more request."""
        self._draining.set()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)

    async def drain(self) -> None:
        """Accept no more, and return when what was accepted is answered."""
        self.stop_accepting()
        while self._connections:
            await asyncio.wait(self._connections)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker on the same socket was faster, or the client has gone
        except OSError as error:
            log.warning("cannot accept connections for a moment: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(ACCEPT_PAUSE_S, self._resume, listener)
            return
        task = asyncio.get_running_loop().create_task(self._connected(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _resume(self, listener: socket.socket) -> None:
        if not self._draining.is_set():
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _connected(self, connection: socket.socket) -> None:
        crowded = len(self._connections) > MAX_CONNECTIONS
        reader, writer = await asyncio.open_connection(sock=connection, limit=_READ_BYTES)
        try:
            await _Connection(reader, writer, self._answer, self._draining, self._buffer).run(crowded)
        except (OSError, asyncio.TimeoutError, TimeoutError, h11.LocalProtocolError) as error:
            log.debug("a connection broke: %s", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), STALL_S)
            writer.transport.abort()


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Answer,
        draining: asyncio.Event,
        buffer: _Buffer,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._draining = draining
        self._buffer = buffer
        self._buffered_bytes = 0
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.request_head_bytes)
        self._head_only = False
        self._deadline: float | None = None

    async def run(self, crowded: bool) -> None:
        """Answer requests until the connection ends; with `crowded` only to say that there are too many."""
        try:
            while await self._one_request(crowded):
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._refuse(_error(error.error_status_hint, str(error)))

    async def _one_request(self, crowded: bool) -> bool:
        """Answer one request; returns whether the connection may bring another."""
        self._head_only, self._deadline = False, None
        request = await self._next_request()
        if request is None:
            return False
        self._head_only = request.method == b"HEAD"
        if crowded:
            await self._refuse(_error(503, f"more than {MAX_CONNECTIONS} connections"))
            return False
        try:
            body = await self._body(request)
            if isinstance(body, Response):
                await self._refuse(body)
                return False
            response = await self._answered(request, body)
        finally:
            self._buffer.give_back(self._buffered_bytes)
            self._buffered_bytes = 0
        await self._send(response, close=self._draining.is_set())
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _answered(self, request: h11.Request, body: bytes) -> Response:
        try:
            return await self._answer(request.method.decode(), request.target.decode("ascii", "replace"), body)
        except Exception:
            log.exception("a request could not be answered")
            return _error(500, "internal error; the log of the agent tells more")

    async def _refuse(self, response: Response) -> None:
        """Answer an error and end the connection, so that the client has a chance to read it.

        Closed with bytes unread, the connection would be reset, and the answer lost with it.
        """
        await self._send(response, close=True)
        self._writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._discard(), LINGER_S)

    async def _discard(self) -> None:
        while await self._reader.read(_READ_BYTES):
            pass

    async def _next_request(self) -> h11.Request | None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._read_while_idle()
                if data is None:
                    return None
                self._http.receive_data(data)
            elif isinstance(event, h11.Request):
                return event
            else:
                return None

    async def _read_while_idle(self) -> bytes | None:
        """Return what came next, or None when the connection may be closed."""
        begun = bool(self._http.trailing_data[0])
        timeout_s = self._patience_s() if begun else IDLE_S
        read = asyncio.ensure_future(self._reader.read(_READ_BYTES))
        drain = asyncio.ensure_future(self._draining.wait())
        try:
            done, _ = await asyncio.wait({read, drain}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if read not in done and drain in done:
                await asyncio.wait({read}, timeout=LINGER_S)
            return read.result() if read.done() else None
        finally:
            for future in (read, drain):
                future.cancel()
            await asyncio.gather(read, drain, return_exceptions=True)

    def _patience_s(self) -> float:
        """Return how long to wait for the next bytes of a request that has begun."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + REQUEST_S
        return max(0.0, min(STALL_S, self._deadline - now))

    async def _body(self, request: h11.Request) -> bytes | Response:
        """Return the body, or the answer to one that is too large."""
        declared = next((value for name, value in request.headers if name == b"content-length"), b"0")
        if int(declared) > LIMITS.request_body_bytes:
            return _too_large()
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        pieces: list[bytes] = []
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await asyncio.wait_for(self._reader.read(_READ_BYTES), self._patience_s()))
            elif isinstance(event, h11.Data):
                if self._buffered_bytes + len(event.data) > LIMITS.request_body_bytes:
                    return _too_large()
                if not self._buffer.take(len(event.data)):
                    return _error(503, f"requests of {MAX_BUFFERED_BYTES} bytes are being read already")
                self._buffered_bytes += len(event.data)
                pieces.append(bytes(event.data))
            else:
                return b"".join(pieces)

    async def _send(self, response: Response, *, close: bool) -> None:
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(response.body))),
            *([("connection", "close")] if close else []),
            *([("retry-after", "1")] if response.status == 503 else []),
        ]
        reason = http.HTTPStatus(response.status).phrase
        data = (
            self._http.send(h11.Response(status_code=response.status, headers=headers, reason=reason.encode())) or b""
        )
        data += (b"" if self._head_only else self._http.send(h11.Data(data=response.body))) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self._write(data)

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            await asyncio.wait_for(self._writer.drain(), STALL_S)


def _too_large() -> Response:
    return _error(413, f"the body has more than {LIMITS.request_body_bytes} bytes")


def _error(status: int, message: str) -> Response:
    return Response(status, json.dumps({"error": message}).encode())
