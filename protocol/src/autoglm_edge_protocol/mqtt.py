"""The link to a broker: paho-mqtt for asyncio, with its known traps handled here and nowhere else.

- paho's callbacks run on its network thread; messages are handed to the event loop of the caller.
- A QoS 1 message is acknowledged to the broker only after the handler has finished with it, so what a handler commits
  to disk is not lost when the process dies first (the broker sends it again).
- paho's out-queue is unbounded and ignores the in-flight limit after a reconnection: at most `IN_FLIGHT` QoS 1
  publications are ever given to it, the others wait here for their turn.
- `wait_for_publish` can block for ever: completion is a future, and the caller states how long it waits.
- Blocks sent (QoS 0) wait in that same unbounded queue for the socket: `room_for_block` bounds how many.
- Bulk blocks (QoS 0) may arrive faster than they are used: the queue is bounded and drops, and the receiver asks again.

MQTT 3.1.1 (OASIS standard, 2014), QoS 0 and 1, persistent session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from autoglm_edge_protocol.errors import LinkError, MalformedDocument

log = logging.getLogger(__name__)

IN_FLIGHT = 16
UNSENT_BLOCKS = 32
"""Blocks given to paho and not yet written to the socket: about 2 MB."""
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker is: `mqtt://[user:password@]host[:port]`, or `mqtts://` for TLS."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Read a URL. Raises MalformedDocument."""
        try:
            parts = urlsplit(url)
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
        except (KeyError, ValueError):
            raise MalformedDocument("broker address", f"{url!r}; write mqtt://HOST:PORT or mqtts://HOST:PORT") from None
        if not parts.hostname:
            raise MalformedDocument("broker address", f"{url!r} names no host")
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        return cls(parts.hostname, port, parts.scheme == "mqtts", user, password)

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


@dataclass(frozen=True)
class Message:
    """A message that came in."""

    topic: str
    payload: bytes
    qos: int
    retained: bool


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained, when the connection breaks."""

    topic: str
    payload: bytes


Handler = Callable[[Message], Awaitable[None]]
Connected = Callable[[], Awaitable[None]]


class Link:
    """One MQTT connection that restores itself until it is closed.

    Args:
        address: the broker.
        client_id: unique at the broker; it names the persistent session.
        filters: topic filter -> QoS, subscribed on every connection.
        on_message: awaited for each message, one at a time and in order per QoS. An exception is logged, and the
            message counts as handled: a message that cannot be handled now will not be handled better later.
        on_connected: awaited after each subscription is granted.
        will: called before each connection, so that each session can have a will of its own.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        filters: Mapping[str, int],
        on_message: Handler,
        on_connected: Connected | None = None,
        will: Callable[[], Will] | None = None,
        block_queue: int = 256,
        keepalive_s: int = 30,
    ) -> None:
        self._address = address
        self._filters = dict(filters)
        self._on_message = on_message
        self._on_connected = on_connected
        self._will = will
        self._keepalive_s = keepalive_s
        self._connected = asyncio.Event()
        self._control: asyncio.Queue[tuple[Message, int]] = asyncio.Queue()
        self._blocks: asyncio.Queue[Message] = asyncio.Queue(block_queue)
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._awaiting: dict[int, asyncio.Future[None]] = {}
        self._unsent: set[int] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dropped_blocks = 0
        self.last_problem: str | None = None
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        self._prepare()

    # life ----

    async def start(self) -> None:
        """Begin to connect; returns at once. Raises LinkError when TLS files cannot be used."""
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._consume_control()), asyncio.create_task(self._consume_blocks())]
        self._set_will()
        self._client.connect_async(self._address.host, self._address.port, self._keepalive_s)
        self._client.loop_start()

    async def stop(self) -> None:
        """Disconnect in order (the broker then does not publish the will) and end the thread."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_awaiting("the link was closed")

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection and the subscriptions."""
        return self._connected.is_set()

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait for the connection. Raises LinkError after `timeout_s` with what stood in the way."""
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            problem = self.last_problem or "no answer"
            raise LinkError(f"no connection to {self._address} within {timeout_s:.0f} s: {problem}") from None

    # sending ----

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0) -> None:
        """Publish at QoS 1 and wait for the broker's acknowledgement.

        Raises LinkError after `timeout_s`. The message may then still arrive: receivers deduplicate.
        """
        try:
            await asyncio.wait_for(self._publish(topic, payload, retain), timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            raise LinkError(f"the broker did not acknowledge within {timeout_s:.0f} s") from None

    async def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        async with self._slots:
            await self._connected.wait()
            info = self._client.publish(topic, payload, qos=1, retain=retain)
            if info.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN):
                raise LinkError(f"cannot publish: {paho.error_string(info.rc)}")
            # No await between here and there: the acknowledgement, handed over by the network thread, comes after.
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaiting[info.mid] = future
            try:
                await future
            finally:
                self._awaiting.pop(info.mid, None)

    def send_block(self, topic: str, payload: bytes) -> bool:
        """Publish at QoS 0 without waiting; returns False when there is no connection."""
        if not self._connected.is_set():
            return False
        info = self._client.publish(topic, payload, qos=0)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return False
        self._unsent.add(info.mid)
        if len(self._unsent) >= UNSENT_BLOCKS:
            self._room.clear()
        return True

    async def room_for_block(self) -> None:
        """Wait until there is a connection and fewer than `UNSENT_BLOCKS` blocks wait for the socket."""
        while not (self._connected.is_set() and self._room.is_set()):
            await self._connected.wait()
            await self._room.wait()

    # paho's side, on its network thread ----

    def _prepare(self) -> None:
        client, address = self._client, self._address
        client.reconnect_delay_set(min_delay=1, max_delay=30)
        client.max_inflight_messages_set(IN_FLIGHT)
        client.max_queued_messages_set(4 * IN_FLIGHT)
        client.on_pre_connect = lambda *_: self._set_will()
        client.on_connect = self._paho_connected
        client.on_connect_fail = lambda *_: self._note_problem("the connection was refused or timed out")
        client.on_disconnect = self._paho_disconnected
        client.on_subscribe = self._paho_subscribed
        client.on_publish = lambda _c, _u, mid, _r, _p: self._from_thread(self._acknowledged, mid)
        client.on_message = self._paho_message
        if address.user is not None:
            client.username_pw_set(address.user, address.password)
        if address.tls:
            client.tls_set_context(_tls_context(address))

    def _set_will(self) -> None:
        if self._will is not None:
            will = self._will()
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)

    def _from_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _paho_connected(self, client: paho.Client, _userdata: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            self._note_problem(f"the broker says: {reason}")
            return
        if self._filters:
            client.subscribe(list(self._filters.items()))
        else:
            self._from_thread(self._ready)

    def _paho_subscribed(self, _c: paho.Client, _u: Any, _mid: int, reasons: list[Any], _props: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._note_problem(f"the broker refused a subscription: {refused[0]}")
            return
        self._from_thread(self._ready)

    def _paho_disconnected(self, _c: paho.Client, _u: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            self._note_problem(f"the connection was lost: {reason}")
        self._from_thread(self._lost)

    def _note_problem(self, problem: str) -> None:
        if problem != self.last_problem:
            log.warning("%s: %s", self._address, problem)
        self.last_problem = problem

    def _paho_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        taken = Message(message.topic, bytes(message.payload), message.qos, bool(message.retain))
        self._from_thread(self._take, taken, message.mid)

    # the event loop's side ----

    def _ready(self) -> None:
        self.last_problem = None
        self._connected.set()
        if self._on_connected is not None:
            task = asyncio.ensure_future(self._guarded(self._on_connected()))
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)

    def _lost(self) -> None:
        self._connected.clear()
        self._unsent.clear()  # paho throws unsent packets of QoS 0 away when it connects again
        self._room.set()

    def _take(self, message: Message, mid: int) -> None:
        if message.qos > 0:
            # Bounded by the broker: it sends no more than its in-flight limit before the acknowledgements.
            self._control.put_nowait((message, mid))
            return
        try:
            self._blocks.put_nowait(message)
        except asyncio.QueueFull:
            self.dropped_blocks += 1

    async def _consume_control(self) -> None:
        while True:
            message, mid = await self._control.get()
            await self._guarded(self._on_message(message))
            self._client.ack(mid, message.qos)

    async def _consume_blocks(self) -> None:
        while True:
            await self._guarded(self._on_message(await self._blocks.get()))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a message could not be handled")

    def _acknowledged(self, mid: int) -> None:
        if mid in self._unsent:
            self._unsent.discard(mid)
            if len(self._unsent) < UNSENT_BLOCKS:
                self._room.set()
            return
        future = self._awaiting.get(mid)
        if future is not None and not future.done():
            future.set_result(None)

    def _fail_awaiting(self, problem: str) -> None:
        for future in self._awaiting.values():
            if not future.done():
                future.set_exception(LinkError(problem))


def _tls_context(address: BrokerAddress) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(address.ca_file) if address.ca_file else None)
        if address.cert_file:
            context.load_cert_chain(str(address.cert_file), str(address.key_file) if address.key_file else None)
    except (OSError, ssl.SSLError) as error:
        raise LinkError(f"the TLS files for {address} cannot be used: {error}") from None
    return context
