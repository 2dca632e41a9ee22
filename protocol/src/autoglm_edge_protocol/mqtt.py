"""The link to a broker: paho-mqtt for asyncio, with its known traps handled here, in `paho_client`, `in_flight` and
`inbound`.

- `wait_for_publish` can block for ever: completion is a future, and the caller states how long it waits.
- Bulk blocks (QoS 0) may be given faster than the socket takes them: `room_for_block` bounds how many wait.

MQTT 3.1.1 (OASIS standard, 2014), QoS 0 and 1, persistent session.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho

from autoglm_edge_protocol.address import BrokerAddress, load_own_certificate, tls_context
from autoglm_edge_protocol.backoff import Backoff
from autoglm_edge_protocol.errors import LinkError
from autoglm_edge_protocol.in_flight import IN_FLIGHT, InFlight, Outgoing
from autoglm_edge_protocol.inbound import Handler, Inbound, Message, guarded
from autoglm_edge_protocol.paho_client import LoopClient
from autoglm_edge_protocol.publications import Publication

__all__ = ["IN_FLIGHT", "UNSENT_BLOCKS", "BrokerAddress", "Handler", "Link", "Message", "Will"]

log = logging.getLogger(__name__)

UNSENT_BLOCKS = 32
"""Blocks that may wait for the socket: about 2 MB."""
_RECONNECT = Backoff(1.0, 30.0)
_RESUBSCRIBE_S = 30.0
_STOP_S = 3.0


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained, when the connection breaks."""

    topic: str
    payload: bytes


Connected = Callable[[], Awaitable[None]]


class Link:
    """One MQTT connection that restores itself until it is closed. All of it belongs to one event loop, which has to
    be one that can wait for sockets (on Windows not the default one).

    Args:
        address: the broker.
        client_id: unique at the broker; it names the persistent session.
        filters: topic filter -> QoS, subscribed on every connection.
        on_message: awaited for each message, one at a time and in order per QoS. An exception is logged, and the
            message counts as handled: a message that cannot be handled now will not be handled better later.
        on_connected: awaited once after each subscription is granted, one at a time.
        will: called before each attempt to connect, so that each session can have a will of its own.
        block_queue: QoS 0 messages that may wait for the handler; more are dropped and counted in `dropped_blocks`.
        keepalive_s: after this many silent seconds the broker is asked for a sign of life.
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
        self._on_connected = on_connected
        self._will = will
        self._keepalive_s = keepalive_s
        self.last_problem: str | None = None
        self._closed = False
        self._context: ssl.SSLContext | None = None
        self._connection = 0
        self._accepted = False
        self._subscription = 0
        self._connected = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._inbound = Inbound(on_message, self._acknowledge, block_queue)
        self._in_flight = InFlight(self._give)
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = LoopClient(client_id, self._take_block, self._after_reading, self._note_problem)
        self._prepare()

    def _prepare(self) -> None:
        client, address = self._client, self._address
        client.max_inflight_messages_set(IN_FLIGHT)
        client.on_connect = self._paho_connected
        client.on_disconnect = self._paho_disconnected
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._subscribed(mid, reasons)
        client.on_message = self._paho_message
        if address.user is not None:
            client.username_pw_set(address.user, address.password)

    # life ----

    def keep_no_session(self) -> None:
        """Let the broker forget this client when its connection ends. Before `start`."""
        self._client.keep_no_session()

    def renew_certificate(self) -> None:
        """Show the certificate that is in the file now, from the next connection on. Raises LinkError."""
        try:
            if self._context is not None:
                load_own_certificate(self._context, self._address)
        except (OSError, ValueError) as error:
            raise LinkError(f"the TLS files for {self._address} cannot be used: {error}") from None

    async def start(self) -> None:
        """Begin to connect; returns at once. Raises LinkError when TLS files cannot be used."""
        if self._address.tls:
            self._context = tls_context(self._address)
            self._client.tls_set_context(self._context)
        self._client.connect_async(self._address.host, self._address.port, self._keepalive_s)
        self._spawn(self._inbound.consume_control())
        self._spawn(self._inbound.consume_blocks())
        self._spawn(self._stay_connected())

    async def stop(self) -> None:
        """Disconnect in order (the broker then does not publish the will).

        What still waits to be published fails with LinkError. A broker that takes nothing any more is left after a
        few seconds without the order.
        """
        self._closed = True
        self._in_flight.fail("the link was closed")
        await self._client.end(_STOP_S)
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._connected.clear()

    @property
    def dropped_blocks(self) -> int:
        """How many messages at QoS 0 came while too many waited for the handler."""
        return self._inbound.dropped_blocks

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

    async def _stay_connected(self) -> None:
        attempt = 0
        try:
            while not self._closed:
                if await self._connect_once():
                    attempt = 0
                await asyncio.sleep(_RECONNECT.pause_s(attempt))
                attempt += 1
        finally:
            self._client.abandon()

    async def _connect_once(self) -> bool:
        """Serve one connection to its end; returns whether the broker had accepted it."""
        self._connection += 1
        self._accepted = False
        self._subscription = 0
        try:
            if self._will is not None:
                will = self._will()
                self._client.will_set(will.topic, will.payload, qos=1, retain=True)
            await self._client.open()
            await self._client.serve()
        except OSError as error:
            self._note_problem(str(error))
        except Exception as error:  # a will that cannot be made, a name that cannot be encoded
            self._note_problem(f"{type(error).__name__}: {error}")
        self._lost()
        return self._accepted

    def _lost(self) -> None:
        self._connected.clear()
        self._room.set()  # what was not sent is thrown away with the connection

    # sending ----

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0) -> None:
        """Publish at QoS 1 and wait for the broker's acknowledgement.

        Raises LinkError after `timeout_s`, or when the link is closed. The message may then still arrive: receivers
        deduplicate.
        """
        if self._closed:
            raise LinkError("the link is closed")
        publication = Outgoing(topic, payload, retain, asyncio.get_running_loop().create_future())
        self._in_flight.add(publication)
        self._in_flight.advance(self.connected)
        try:
            # Not `wait_for`, which before Python 3.12 may lose a cancellation: the acknowledgement often comes
            # in the same turn of the loop.
            await asyncio.wait({publication.done}, timeout=timeout_s)
            if not publication.done.done():
                problem = "the broker did not acknowledge" if self.connected else self.last_problem or "no connection"
                raise LinkError(f"not published within {timeout_s:.0f} s: {problem}")
            publication.done.result()
        finally:
            self._in_flight.withdraw(publication)
            publication.done.cancel()  # nobody asks any more what becomes of it

    def _give(self, publication: Outgoing) -> paho.MQTTMessageInfo:
        info = self._client.publish(publication.topic, publication.payload, qos=1, retain=publication.retain)
        self._client.flush()
        return info

    def send_block(self, topic: str, payload: bytes) -> bool:
        """Publish at QoS 0 without waiting; False when it was not taken: no connection, or no room for it."""
        if not self.has_room:
            return False
        sent = self._client.send_block(topic, payload)
        if self._client.unsent_blocks >= UNSENT_BLOCKS:
            self._room.clear()
        return sent

    @property
    def has_room(self) -> bool:
        """Whether there is a connection and fewer than `UNSENT_BLOCKS` blocks wait for the socket."""
        return self._connected.is_set() and self._room.is_set()

    async def room_for_block(self) -> None:
        """Wait until there is room."""
        while not self.has_room:
            await self._connected.wait()
            await self._room.wait()

    # subscriptions that come and go ----

    def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe now and on every connection from here on, without waiting: what is published later by this link is
        handled by the broker later, so whoever answers to it finds the subscription made."""
        self._filters[topic_filter] = qos
        if self._connected.is_set():
            self._client.subscribe(topic_filter, qos)
            self._client.flush()

    def unsubscribe(self, topic_filter: str) -> None:
        """End a subscription, also one that the broker remembers of an earlier process."""
        self._filters.pop(topic_filter, None)
        if self._connected.is_set():
            self._client.unsubscribe(topic_filter)
            self._client.flush()

    # what paho calls ----

    def _paho_connected(self, _c: paho.Client, _userdata: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            self._note_problem(f"the broker says: {reason}")
            return
        self._accepted = True
        if self._filters:
            self._subscribe()
        else:
            self._ready()

    def _subscribe(self) -> None:
        _, mid = self._client.subscribe(list(self._filters.items()))
        self._subscription = mid or 0

    def _paho_disconnected(self, _c: paho.Client, _u: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure and (self._accepted or self.last_problem is None):
            self._note_problem(f"the connection was lost: {reason}")
        self._lost()

    def _note_problem(self, problem: str) -> None:
        if problem != self.last_problem and not self._closed:
            log.warning("%s: %s", self._address, problem)
        self.last_problem = problem

    def _paho_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        try:
            taken = Message(message.topic, bytes(message.payload), message.qos, bool(message.retain))
        except UnicodeDecodeError:
            self._note_unreadable_topic()
            self._client.ack(message.mid, message.qos)
            return
        if taken.qos > 0:
            self._inbound.put_control(taken, message.mid, self._connection)
        else:
            self._inbound.put_block(taken)

    def _take_block(self, publication: Publication) -> None:
        try:
            topic = publication.topic.decode()
        except UnicodeDecodeError:
            self._note_unreadable_topic()
            return
        self._inbound.put_block(Message(topic, publication.payload, 0, publication.retained))

    def _note_unreadable_topic(self) -> None:
        log.warning("%s: a message with a topic that is not UTF-8 was thrown away", self._address)

    def _after_reading(self) -> None:
        if self._client.unsent_blocks < UNSENT_BLOCKS:
            self._room.set()
        self._in_flight.advance(self.connected)

    def _subscribed(self, mid: int, reasons: list[Any]) -> None:
        if mid != self._subscription:
            return  # of a subscription that came later, or of a broker that answers what nobody asked
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if not refused:
            self._ready()
            return
        self._note_problem(f"the broker refused a subscription: {refused[0]}")
        # The broker's access list may change without a new connection.
        asyncio.get_running_loop().call_later(_RESUBSCRIBE_S, self._subscribe_again, self._connection)

    def _subscribe_again(self, connection: int) -> None:
        if connection == self._connection and not self._closed:
            self._subscribe()
            self._client.flush()

    def _ready(self) -> None:
        if self._closed:
            return
        self.last_problem = None
        self._connected.set()  # what waits is published when paho is done with this packet
        if self._on_connected is not None:
            self._spawn(self._run_connected(self._on_connected))

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_connected(self, on_connected: Connected) -> None:
        async with self._one_at_a_time:
            await guarded(on_connected())

    def _acknowledge(self, mid: int, connection: int) -> None:
        if connection == self._connection:
            self._client.ack(mid, 1)
            self._client.flush()
