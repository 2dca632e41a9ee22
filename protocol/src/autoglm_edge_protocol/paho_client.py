"""paho's client without a thread of its own: its socket is served by the event loop, like any other.

A network thread costs more than all it does: every system call and every wake-up passes the interpreter's lock from one
thread to the other. Only what may block, looking up a name, connecting and shaking hands, is done in a thread.

An exception of paho (an unreadable packet, a callback) ends the connection, is said, and ends nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from autoglm_edge_protocol.publications import Next, Publication, PublicationReader, head

_MISC_S = 1.0
"""How often it is looked whether the broker is to be asked for a sign of life."""


class LoopClient(paho.Client):
    """An MQTT 3.1.1 client with a persistent session, whose messages are acknowledged by hand. Not thread-safe.

    Args:
        take: told of every publication at QoS 0; `on_message` is for the others.
        after_reading: called when something was read, or written after a wait.
        note_problem: told in a line what broke the connection.
    """

    def __init__(
        self,
        client_id: str,
        take: Callable[[Publication], None],
        after_reading: Callable[[], None],
        note_problem: Callable[[str], None],
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=paho.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        self._take = take
        self._after_reading = after_reading
        self._note_problem = note_problem
        self._reader = PublicationReader()
        self._ended = False
        self._blocks: deque[list[bytes | memoryview]] = deque()
        """Pieces of packets: the whole of it, or what the socket has not taken of the first one."""
        self._is_block_begun = False
        self._served: asyncio.AbstractEventLoop | None = None
        self._writing = False
        self._closed: asyncio.Future[None] | None = None
        """Of the connection that is served."""
        self._opening: asyncio.Future[None] | None = None
        self._abandoned = False
        self.on_socket_close = lambda _client, _userdata, sock: self._detach(sock)

    # life ----

    def keep_no_session(self) -> None:
        """Let the broker forget this client when its connection ends."""
        self._clean_session = True

    async def open(self) -> None:
        """Connect, and serve the connection from here on. Raises OSError, ValueError and what else paho raises."""
        self._reader.clear()
        self._ended = False
        loop = asyncio.get_running_loop()
        self._opening = opened = loop.create_future()
        # A daemon, as a name that takes minutes to look up must not keep a process from ending.
        threading.Thread(target=self._reconnect, args=(loop, opened), name="mqtt-connect", daemon=True).start()
        await asyncio.shield(opened)
        connection = self._connection()
        if connection is None:
            raise ConnectionError("the connection was lost at once")
        with contextlib.suppress(OSError):
            # A request is a small packet, and waits for nothing: neither for more, nor for the other end's word.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._closed = loop.create_future()
        self._served = loop
        loop.add_reader(connection, self._readable)
        self.flush()

    def _reconnect(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        problem: Exception | None = None
        try:
            self.reconnect()
        except Exception as error:
            problem = error
        if self._abandoned:
            self.cut()

        def settle() -> None:
            if opened.done():
                return
            if problem is None:
                opened.set_result(None)
            else:
                opened.set_exception(problem)
                opened.exception()  # nobody may be left to hear of it

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
            loop.call_soon_threadsafe(settle)

    async def serve(self) -> None:
        """Return when the connection is over."""
        # Here and below not `wait_for`, which before Python 3.12 may lose the cancellation of who waits.
        while self._closed is not None and not (await asyncio.wait({self._closed}, timeout=_MISC_S))[0]:
            with self._breaking():
                self.loop_misc()
                self.flush()

    async def end(self, timeout_s: float) -> None:
        """Say good-bye and disconnect; a broker that takes nothing any more is left without. There is no way back."""
        self._abandoned = True
        self.disconnect()
        self.flush()
        if self._closed is not None:
            await asyncio.wait({self._closed}, timeout=timeout_s)
        self.cut()
        if self._opening is not None:
            await asyncio.wait({self._opening}, timeout=timeout_s)

    def abandon(self) -> None:
        """Break the connection, now or as soon as it is made."""
        self._abandoned = True
        self.cut()

    def cut(self) -> None:
        """Break the connection."""
        self._sock_close()

    def _connection(self) -> socket.socket | None:
        connection = self.socket()
        return connection if isinstance(connection, socket.socket) else None

    def _detach(self, connection: paho.SocketLike) -> None:
        self._blocks.clear()
        self._is_block_begun = False
        loop, self._served = self._served, None
        if loop is not None and not loop.is_closed():
            if self._closed is not None and not self._closed.done():
                self._closed.set_result(None)
            loop.remove_reader(connection)
            loop.remove_writer(connection)
        self._writing = False

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """Break the connection when something of paho's goes wrong."""
        try:
            yield
        except Exception as error:
            self._note_problem(f"{type(error).__name__}: {error}")
            self.cut()

    # writing ----

    @property
    def unsent_blocks(self) -> int:
        """How many publications at QoS 0 wait for the socket."""
        return len(self._blocks)

    def send_block(self, topic: str, payload: bytes) -> bool:
        """Publish at QoS 0 without a copy of the bytes; returns whether there is a connection. What paho has to write
        goes first. Raises ValueError."""
        if self._served is None:
            return False
        self._blocks.append([head(topic, len(payload)), payload])
        with self._breaking():
            self.flush()
        return self._served is not None

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it now; the rest follows when it takes more."""
        if self._is_block_begun:
            self._write_blocks(1)
        if self.want_write():
            self.loop_write()
        if self._blocks and not self.want_write():
            self._write_blocks(len(self._blocks))
        waits, connection = self.want_write() or bool(self._blocks), self._connection()
        if waits is self._writing or connection is None or self._served is None:
            return
        self._writing = waits
        if waits:
            self._served.add_writer(connection, self._writable)
        else:
            self._served.remove_writer(connection)

    def _write_blocks(self, most: int) -> None:
        connection = self._connection()
        for _ in range(most):
            if connection is None:
                return
            parts = self._blocks[0]
            size_bytes = sum(map(len, parts))
            try:
                # TLS and Windows have no call for several pieces, and TLS wants the same bytes again after it could not
                # write them.
                if isinstance(connection, ssl.SSLSocket) or sys.platform == "win32":
                    parts[:] = [b"".join(parts)]
                    sent_bytes = connection.send(parts[0])
                else:
                    sent_bytes = connection.sendmsg(parts)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                self._ended = True
                self.loop_read()  # which then finds the connection lost, as if it had been read
                return
            self._is_block_begun = sent_bytes < size_bytes
            if self._is_block_begun:
                parts[:] = [memoryview(b"".join(parts))[sent_bytes:]]
                return
            self._blocks.popleft()
            with self._msgtime_mutex:
                self._last_msg_out = time.monotonic()

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if self._is_block_begun:
            raise BlockingIOError  # its end comes first
        return super()._sock_send(buf)

    def _writable(self) -> None:
        with self._breaking():
            self.flush()
        self._after_reading()

    # reading ----

    def _readable(self) -> None:
        with self._breaking():
            self._read()
            self.flush()
        self._after_reading()

    def _read(self) -> None:
        more = True
        while more and (connection := self._connection()) is not None:
            try:
                size_bytes = connection.recv_into(self._reader.free())
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                size_bytes = 0
            self._ended = size_bytes == 0
            self._reader.filled(size_bytes)
            with self._msgtime_mutex:
                self._last_bytes_received = time.monotonic()
            self._handle_what_came()
            # What TLS has decrypted already makes no socket readable.
            more = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0

    def _handle_what_came(self) -> None:
        while self.socket() is not None:
            found = self._reader.next()
            if isinstance(found, Publication):
                self._take(found)
            elif found is Next.OTHER or self._ended:
                self.loop_read()
            else:
                return

    def _sock_recv(self, bufsize: int) -> bytes:
        """Give paho bytes of the packets that are its own, where it would read the socket."""
        taken = self._reader.take(bufsize)
        if not taken and not self._ended:
            raise BlockingIOError
        return taken
