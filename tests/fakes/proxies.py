"""A TCP proxy that does to a connection what bad networks do, when a test says so.

It runs in a thread of its own; every method may be called from the test. What it holds is bounded, and so are the
buffers that it asks the kernel for: a slow receiver is felt by the sender, as on a real line.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from tests.fakes.ports import free_port

T = TypeVar("T")

PIECE_BYTES = 16 * 1024
PIECES = 16
"""Pieces on the way in one direction: 256 KiB, which with a delay of 100 ms still lets 2.5 MB/s pass."""
KERNEL_BYTES = 16 * 1024
SEGMENT_BYTES = 1448
"""As on Ethernet: for the segments of the loopback interface the kernel gives a sender 4 MB of its own accord."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST and drops what is unsent


class Lane:
    """One direction, over all connections; read and changed by the event loop alone but for plain values."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.passed_bytes = 0
        self.stop_at: int | None = None
        """What the lane does after this many bytes is `on_stop`."""
        self.on_stop: Callable[[], None] = lambda: None
        self.open = asyncio.Event()
        self.open.set()
        self._free_at = 0.0

    def allowed(self, size_bytes: int) -> int:
        """Return how many of so many bytes may pass before the lane stops."""
        return size_bytes if self.stop_at is None else max(1, min(size_bytes, self.stop_at - self.passed_bytes))

    def passed(self, size_bytes: int) -> None:
        self.passed_bytes += size_bytes
        if self.stop_at is not None and self.passed_bytes >= self.stop_at:
            self.stop_at = None
            self.on_stop()

    def wait_s(self, size_bytes: int, now: float) -> float:
        """Return how long to wait before so many bytes may follow those that went before."""
        if self.bytes_per_s is None:
            return 0.0
        self._free_at = max(now, self._free_at) + size_bytes / self.bytes_per_s
        return self._free_at - now


class Proxy:
    """Listens on a port of its own and passes every connection on to `target_port`, which may change."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = free_port()
        self.refusing = False
        self.refused = 0
        """Connections that were reset at once."""
        self.accepted = 0
        self.resets = 0
        """Connections that were reset while they were in use."""
        self.stopped = threading.Event()
        """Set when a lane has come to the byte that it was to stop at."""
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up, self.down = self._do(self._listen())

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # faults ----

    def cut(self) -> None:
        """Close every connection."""
        self._do(self._cut(reset=False))

    def reset(self) -> None:
        """Reset every connection."""
        self._do(self._cut(reset=True))

    def pause(self) -> None:
        """Let nothing more pass to the client."""
        self._do(self._open(False))

    def resume(self) -> None:
        self._do(self._open(True))

    def delay(self, delay_s: float) -> None:
        """Let every byte take so long, each way."""
        self.up.delay_s = self.down.delay_s = delay_s

    def throttle(self, down_bytes_per_s: float | None, up_bytes_per_s: float | None = None) -> None:
        """Let no more bytes pass to the client, and from it."""
        self.down.bytes_per_s, self.up.bytes_per_s = down_bytes_per_s, up_bytes_per_s

    def pause_after(self, size_bytes: int) -> None:
        """Pause when so many more bytes have gone to the client; `stopped` is set then."""
        self._stop_after(size_bytes, self.down.open.clear)

    def reset_after(self, size_bytes: int) -> None:
        """Reset the connections when so many more bytes have gone to the client; `stopped` is set then."""
        self._stop_after(size_bytes, self._reset_all)

    def _stop_after(self, size_bytes: int, then: Callable[[], None]) -> None:
        def on_stop() -> None:
            then()
            self.stopped.set()

        async def arrange() -> None:
            self.stopped.clear()
            self.down.on_stop = on_stop
            self.down.stop_at = self.down.passed_bytes + size_bytes

        self._do(arrange())

    # the event loop's side ----

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self, open_: bool) -> None:
        (self.down.open.set if open_ else self.down.open.clear)()

    async def _listen(self) -> tuple[Lane, Lane]:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())
        return Lane(), Lane()

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            if self.refusing:
                self.refused += 1
                _close(client, reset=True)
                continue
            upstream = socket.socket()
            upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
            upstream.setblocking(False)
            try:
                await self._loop.sock_connect(upstream, ("127.0.0.1", self.target_port))
            except OSError:
                _close(upstream, reset=True)
                _close(client, reset=True)
                continue
            self.accepted += 1
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
            for each in (client, upstream):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Connection(client, upstream, self.up, self.down, self._connections)

    def _reset_all(self) -> None:
        for connection in tuple(self._connections):
            self.resets += 1
            connection.end(reset=True)

    async def _cut(self, *, reset: bool) -> None:
        if reset:
            self._reset_all()
        for connection in tuple(self._connections):
            connection.end(reset=False)

    async def _close(self) -> None:
        self._accepting.cancel()
        await self._cut(reset=False)
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()


class _Connection:
    """A client and its way to the target, until one of them closes."""

    def __init__(
        self, client: socket.socket, upstream: socket.socket, up: Lane, down: Lane, register: set[_Connection]
    ) -> None:
        self._sockets = (client, upstream)
        self._register = register
        register.add(self)
        lanes = (client, upstream, up), (upstream, client, down)
        self._tasks = [asyncio.create_task(self._carry(*lane)) for lane in lanes]

    async def _carry(self, source: socket.socket, sink: socket.socket, lane: Lane) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)
        taking = asyncio.create_task(_take(source, lane, pieces))
        try:
            with contextlib.suppress(OSError):
                await _pass_on(sink, lane, pieces)
            self.end(reset=False)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    def end(self, *, reset: bool) -> None:
        self._register.discard(self)
        for each in self._sockets:
            _close(each, reset=reset)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()


async def _take(source: socket.socket, lane: Lane, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    piece = b"-"
    while piece:
        try:
            piece = await loop.sock_recv(source, PIECE_BYTES)
        except OSError:
            piece = b""  # what came before is passed on, then the other side is closed
        await pieces.put((loop.time() + lane.delay_s, piece))


async def _pass_on(sink: socket.socket, lane: Lane, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, piece = await pieces.get()
        if not piece:
            return
        await asyncio.sleep(max(0.0, due - loop.time()))
        while piece:
            await lane.open.wait()
            size_bytes = lane.allowed(len(piece))
            if (wait_s := lane.wait_s(size_bytes, loop.time())) > 0:
                await asyncio.sleep(wait_s)
            await loop.sock_sendall(sink, piece[:size_bytes])
            piece = piece[size_bytes:]
            lane.passed(size_bytes)


def _close(connection: socket.socket, *, reset: bool) -> None:
    if connection.fileno() < 0:
        return
    loop = asyncio.get_running_loop()
    loop.remove_reader(connection)  # before its number is given to another socket
    loop.remove_writer(connection)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.close()
