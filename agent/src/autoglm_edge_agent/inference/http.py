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
LINGER_S = 2.0
"""How long an idle connection of a draining server may still bring a request."""
MAX_CONNECTIONS = 128
_READ_BYTES = 64 * 1024


class HttpServer:
    """Serves on inherited sockets until drained."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept. Raises OSError."""
        for listener in listeners:
            # start_server takes Unix sockets too, and does not remove their name when it is closed.
            self._servers.append(await asyncio.start_server(self._connected, sock=listener, limit=_READ_BYTES))

    async def drain(self) -> None:
        """Accept no more, and return when what was accepted is answered."""
        self._draining.set()
        for server in self._servers:
            server.close()
        await asyncio.sleep(0)  # connections that the kernel gave us already become tasks
        while self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _Connection(reader, writer, self._answer, self._draining).run(len(self._connections))
        except (OSError, asyncio.TimeoutError, TimeoutError, h11.LocalProtocolError) as error:
            log.debug("a connection broke: %s", error)
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Connection:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, draining: asyncio.Event
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._draining = draining
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.request_head_bytes)

    async def run(self, connections: int) -> None:
        try:
            while await self._one_request(connections):
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(_error(error.error_status_hint, str(error)), close=True)

    async def _one_request(self, connections: int) -> bool:
        """Answer one request; returns whether the connection may bring another."""
        request = await self._next_request()
        if request is None:
            return False
        if connections > MAX_CONNECTIONS:
            await self._send(_error(503, f"more than {MAX_CONNECTIONS} connections"), close=True)
            return False
        body = await self._body(request)
        if body is None:
            await self._send(_error(413, f"the body has more than {LIMITS.request_body_bytes} bytes"), close=True)
            return False
        response = await self._answer(request.method.decode(), request.target.decode("ascii", "replace"), body)
        await self._send(response, close=self._draining.is_set(), head=request.method == b"HEAD")
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

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
        read = asyncio.ensure_future(self._reader.read(_READ_BYTES))
        drain = asyncio.ensure_future(self._draining.wait())
        try:
            done, _ = await asyncio.wait(
                {read, drain}, timeout=STALL_S if begun else IDLE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if read not in done and drain in done:
                await asyncio.wait({read}, timeout=LINGER_S)
            return read.result() if read.done() else None
        finally:
            for future in (read, drain):
                future.cancel()
            await asyncio.gather(read, drain, return_exceptions=True)

    async def _body(self, request: h11.Request) -> bytes | None:
        """Return the body, None when it is too large."""
        declared = next((value for name, value in request.headers if name == b"content-length"), b"0")
        if int(declared) > LIMITS.request_body_bytes:
            return None
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        pieces: list[bytes] = []
        size = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await asyncio.wait_for(self._reader.read(_READ_BYTES), STALL_S))
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > LIMITS.request_body_bytes:
                    return None
                pieces.append(bytes(event.data))
            else:
                return b"".join(pieces)

    async def _send(self, response: Response, *, close: bool, head: bool = False) -> None:
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
        data += (b"" if head else self._http.send(h11.Data(data=response.body))) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self._write(data)

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            await asyncio.wait_for(self._writer.drain(), STALL_S)


def _error(status: int, message: str) -> Response:
    return Response(status, json.dumps({"error": message}).encode())
