"""The HTTP server on a real socket, with clients that do what clients do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.waiting import until

from autoglm_edge_agent.inference import http_connection
from autoglm_edge_agent.inference.http import HttpServer
from autoglm_edge_agent.inference.messages import Request, Response
from autoglm_edge_protocol.limits import LIMITS

GET = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Served:
    """A running server whose answer tells what was asked."""

    server: HttpServer
    listener: socket.socket
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request) -> Response:
        method, target, body = request.method, request.target, bytes(request.body)
        self.asked.append((method, target, body))
        if method == "CONNECT":
            return Response(405, b"{}")
        if target == "/slow":
            await self.hold.wait()
        if target == "/defect":
            raise ZeroDivisionError
        if target == "/large":
            return Response(200, b'"' + b"x" * 8_000_000 + b'"')
        return Response(200, b'{"size":%d}' % len(body))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.getsockname())

    async def exchange(self, data: bytes) -> bytes:
        """Send, end our side, and return all that comes back."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            with contextlib.suppress(OSError):
                writer.write_eof()
                return await asyncio.wait_for(reader.read(), 10)
            return b""
        finally:
            writer.close()


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    for name, value_s in (("IDLE_S", 0.6), ("STALL_S", 0.3), ("REQUEST_S", 0.8), ("LINGER_S", 0.2)):
        monkeypatch.setattr(http_connection, name, value_s)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listener.setblocking(False)
    holder: list[Served] = []
    served = Served(HttpServer(lambda request: holder[0].answer(request)), listener)
    holder.append(served)
    served.server.start([listener])
    yield served
    served.hold.set()
    await asyncio.wait_for(served.server.drain(), 5)
    listener.close()


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    status, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(status.split()[1]), headers, body


EXCHANGES: list[tuple[str, bytes, str]] = [
    ("a request", GET, "200"),
    ("HEAD has no body", b"HEAD /v2 HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
    ("a chunked body", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "200"),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", "200"),
    ("CONNECT", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", "400"),
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
    ("a head without end", b"GET / HTTP/1.1\r\nX: " + b"y" * (LIMITS.request_head_bytes + 10), "431"),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
    ("a length that is none", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400"),
    ("a length beyond counting", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\n", "413"),
    ("a body that is too large", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc", "413"),
    ("HEAD with such a body", b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc", "413"),
    ("an unknown coding", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: zip\r\n\r\n", "501"),
    ("a chunk size that is none", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
    ("a body that ends early", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", "400"),
    ("a defect of ours", b"GET /defect HTTP/1.1\r\nHost: x\r\n\r\n", "500"),
]


@pytest.mark.parametrize(("what", "data", "status"), EXCHANGES, ids=[row[0] for row in EXCHANGES])
async def test_exchange(served: Served, what: str, data: bytes, status: str) -> None:
    answer = await served.exchange(data)
    assert answer.startswith(b"HTTP/1.1 " + status.encode()), what
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body.startswith(b"{") is not data.startswith(b"HEAD"), what
    assert b"content-type: application/json" in head


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [GET, GET[:10], b"\r\n", b"\r\n\r\n", b"POST / HTTP/1.1\r\n", b"Content-Length: 3\r\n", b"abc"]
            ),
        ),
        max_size=6,
    )
)
def test_any_bytes_get_an_answer_or_an_end(pieces: list[bytes]) -> None:
    asyncio.run(_fuzz(pieces))


async def _fuzz(pieces: list[bytes]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))

    async def answer(_request: Request) -> Response:
        return Response(200, b"{}")

    server = HttpServer(answer)
    server.start([listener])
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        data = await asyncio.wait_for(reader.read(), 5)
        assert data == b"" or data.startswith(b"HTTP/1.1 ")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await asyncio.wait_for(server.drain(), 5)
    listener.close()
    assert not problems


async def test_requests_in_one_packet_are_answered_in_order(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)))
    for _ in range(20):
        assert (await _read_response(reader))[0] == 200
    assert [target for _, target, _ in served.asked] == [f"/{number}" for number in range(20)]
    writer.close()


async def test_a_client_may_ask_before_it_sends(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"abc")
    assert (await _read_response(reader))[2] == b'{"size":3}'
    writer.close()


async def test_an_oversized_body_is_refused_while_it_is_sent(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LIMITS.request_body_bytes + 1))
    writer.write(b"x" * 3_000_000)
    status, headers, _ = await _read_response(reader)
    assert (status, headers["connection"]) == (413, "close")
    writer.close()


async def test_a_body_of_tiny_chunks_takes_no_more_memory_than_it_has(served: Served) -> None:
    reader, writer = await served.connect()
    chunks = b"1\r\nx\r\n" * 200_000
    tracemalloc.start()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(chunks), 60_000):
        writer.write(chunks[start : start + 60_000])
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    status, _, body = await _read_response(reader)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (status, body) == (200, b'{"size":200000}')
    assert most_bytes < 4_000_000  # each piece kept by itself would have 50 bytes
    writer.close()


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"])
async def test_a_silent_client_is_left(served: Served, start: bytes) -> None:
    reader, writer = await served.connect()
    writer.write(start)
    assert await asyncio.wait_for(reader.read(), 3) == b""
    writer.close()


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"]
)
async def test_a_client_that_sends_a_byte_now_and_then_is_left(served: Served, head: bytes) -> None:
    reader, writer = await served.connect()
    writer.write(head)
    started = asyncio.get_running_loop().time()
    with contextlib.suppress(OSError):
        while not reader.at_eof() and asyncio.get_running_loop().time() - started < 4:
            writer.write(b"x")
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(reader.read(100), 0.1)
    assert asyncio.get_running_loop().time() - started < 3
    writer.close()


async def test_a_client_that_does_not_read_is_left(served: Served) -> None:
    _, writer = await served.connect()
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.2)
    await asyncio.wait_for(served.server.drain(), 5)
    writer.close()


async def test_a_client_that_reads_slowly_and_steadily_gets_all_of_it(served: Served) -> None:
    loop, received = asyncio.get_running_loop(), 0
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.setblocking(False)
        await loop.sock_connect(client, served.listener.getsockname())
        await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        started = loop.time()
        while piece := await loop.sock_recv(client, 65_536):
            received += len(piece)
            # 8 MB in more than a second, where a client may pause for 0.3 s.
            await asyncio.sleep(max(0.0, received / 6_000_000 - (loop.time() - started)))
    assert received > 8_000_000


async def test_too_many_connections_are_told_so(served: Served) -> None:
    connections = [await served.connect() for _ in range(http_connection.MAX_CONNECTIONS + 3)]
    await asyncio.sleep(0.1)
    statuses = []
    for reader, writer in reversed(connections):
        writer.write(GET)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            statuses.append((await _read_response(reader))[0])
    assert sorted(statuses)[-3:] == [503, 503, 503]
    assert statuses.count(200) == http_connection.MAX_CONNECTIONS
    for _, writer in connections:
        writer.close()


@pytest.mark.parametrize(
    "head", ["GET / HTTP/1.1\r\nHost: x\r\nConnection: close", "GET / HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 1"]
)
async def test_a_connection_ends_when_the_client_wants_that(served: Served, head: str) -> None:
    reader, writer = await served.connect()
    writer.write(f"{head}\r\n\r\n".encode() + b"x" * ("POST" in head))
    answer = await asyncio.wait_for(reader.read(), 0.15)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    writer.close()


# the orderly end ----


@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)], ids=["closed", "reset"])
async def test_a_client_that_goes_while_its_last_answer_is_written_is_no_defect(
    served: Served, linger: bytes | None
) -> None:
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    with socket.create_connection(served.listener.getsockname()) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await until(lambda: bool(served.asked), 5)
        if linger is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    served.hold.set()
    await asyncio.wait_for(served.server.drain(), 5)
    gc.collect()
    assert problems == []


async def test_draining_finishes_what_was_accepted(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: len(served.asked) == 1, 3)
    drained = asyncio.create_task(served.server.drain())
    await asyncio.sleep(0.1)
    assert not drained.done()
    served.hold.set()
    status, headers, _ = await _read_response(reader)
    assert (status, headers["connection"]) == (200, "close")
    await asyncio.wait_for(drained, 2)
    writer.close()


async def test_an_idle_connection_may_bring_one_more_request_while_draining(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(GET)
    assert "connection" not in (await _read_response(reader))[1]
    drained = asyncio.create_task(served.server.drain())
    await asyncio.sleep(0.05)
    writer.write(GET)
    status, headers, _ = await _read_response(reader)
    assert (status, headers["connection"]) == (200, "close")
    await asyncio.wait_for(drained, 2)
    writer.close()


async def test_a_large_answer_is_whole_though_the_server_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "STALL_S", 5.0)
    reader, writer = await served.connect()
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: len(served.asked) == 1, 3)
    drained = asyncio.create_task(served.server.drain())
    await asyncio.sleep(0.2)
    _, _, body = await _read_response(reader)
    assert len(body) == 8_000_002
    await asyncio.wait_for(drained, 2)
    writer.close()


async def test_no_connection_is_lost_between_two_servers_on_one_socket(served: Served) -> None:
    """Each connection is answered by the old or the new server, at whatever instant the switch comes."""

    async def ask() -> bool:
        reader, writer = await served.connect()
        writer.write(GET)
        status, _, _ = await _read_response(reader)
        writer.close()
        return status == 200

    sockets = [served.listener]
    current = served.server
    for _ in range(30):
        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for _ in range(len(sockets) % 7):
            await asyncio.sleep(0)
        sockets.append(served.listener.dup())  # the same socket by another number, as a new worker has it
        fresh = HttpServer(served.answer)
        fresh.start(sockets[-1:])
        drained = asyncio.create_task(current.drain())
        assert all(await asyncio.gather(*asking))
        await asyncio.wait_for(drained, 3)
        current = fresh
    await current.drain()
    for copy in sockets[1:]:
        copy.close()


async def test_bodies_of_all_connections_together_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_BUFFERED_BYTES", 1000)
    first, first_writer = await served.connect()
    first_writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 700\r\n\r\n" + b"a" * 700)
    while not served.asked:
        await asyncio.sleep(0.01)
    second, second_writer = await served.connect()
    second_writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 700\r\n\r\n" + b"b" * 700)
    status, headers, _ = await _read_response(second)
    assert (status, headers["retry-after"]) == (503, "1")
    served.hold.set()
    assert (await _read_response(first))[0] == 200
    third = await served.exchange(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 700\r\n\r\n" + b"c" * 700)
    assert third.startswith(b"HTTP/1.1 200")
    for writer in (first_writer, second_writer):
        writer.close()
