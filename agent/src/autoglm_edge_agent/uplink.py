"""The device's side of the wire: topics in, documents out. Knows MQTT topics, decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from autoglm_edge_agent.config import Config
from autoglm_edge_agent.enrolment.board_id import board_id
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.receiving import Block
from autoglm_edge_protocol.deployment import Presence
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.mqtt import Link, Message, Will
from autoglm_edge_protocol.names import EVERYBODY
from autoglm_edge_protocol.topics import BULK, RETAINED, Channel, Topic, device_filters, parse_topic, shared_filter
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest, StreamCredit

log = logging.getLogger(__name__)

_LONGEST_QUEUE_S = 600.0
"""What a broker may hold for a slow device, in the time that this takes to come."""


class Uplink:
    """The link to the fleet.

    Args:
        first_session: number of the first session of this start; each connection takes the next.
        on_connected: called after presence was told.
    """

    def __init__(self, config: Config, first_session: int, on_connected: Callable[[], None]) -> None:
        self._fleet, self._device = config.device.fleet, config.device.name
        self._next_session = first_session
        self.session = first_session
        self._on_connected = on_connected
        self.on_desired: Callable[[bytes], object] | None = None
        self.on_command: Callable[[bytes], Awaitable[None]] | None = None
        self.on_renewed: Callable[[bytes], None] | None = None
        self.fetchers: tuple[Fetcher, ...] = ()
        self._unfollowed = ""
        self._board = board_id(self._fleet)
        self._link = Link(
            config.broker.address(),
            config.broker.client_id or f"autoglm-{self._fleet}-{self._device}",
            device_filters(self._fleet, self._device, enrolled=config.device.identity is not None),
            self._take,
            self._connected,
            self._will,
        )

    async def start(self) -> None:
        """Begin to connect. Raises LinkError."""
        await self._link.start()

    async def stop(self) -> None:
        """Say that we go, and disconnect."""
        if self._link.connected:
            try:
                await self._publish(Channel.PRESENCE, self._presence(online=False).to_bytes(), timeout_s=2)
            except ProtocolError as error:
                log.debug("could not say good-bye: %s", error)
        await self._link.stop()

    # sending ----

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached now."""
        return self._link.connected

    def request(self, request: FetchRequest) -> bool:
        """Ask for blocks, at most once."""
        return self._link.send_block(str(self._topic(Channel.FETCH)), request.to_bytes())

    def follow(self, sha256: str) -> None:
        """Listen to what is sent to all that lack a file."""
        self._link.subscribe(shared_filter(self._fleet, sha256), 0)

    def unfollow(self, sha256: str) -> None:
        """Listen no more."""
        self._unfollowed = sha256
        self._link.unsubscribe(shared_filter(self._fleet, sha256))

    def credit(self, credit: StreamCredit) -> bool:
        """Say how far a stream has come, at most once."""
        return self._link.send_block(str(self._topic(Channel.CREDIT)), credit.to_bytes())

    async def acknowledged_credit(self, credit: StreamCredit) -> None:
        """Say it at least once; returns when the broker has acknowledged it. Raises LinkError."""
        await self._publish(Channel.CREDIT, credit.to_bytes(), timeout_s=_LONGEST_QUEUE_S)

    async def send_report(self, data: bytes) -> None:
        """Publish the reported state. Raises LinkError."""
        await self._publish(Channel.REPORTED, data)

    async def send_answer(self, data: bytes) -> None:
        """Publish an answer. Raises LinkError."""
        await self._publish(Channel.ANSWER, data)

    async def send_telemetry(self, data: bytes) -> None:
        """Publish a telemetry batch. Raises LinkError."""
        await self._publish(Channel.TELEMETRY, data)

    async def send_renewal(self, data: bytes) -> None:
        """Ask for a new certificate. Raises LinkError."""
        await self._publish(Channel.RENEWAL, data)

    def renew_certificate(self) -> None:
        """Show the certificate that is in the file now, from the next connection on. Raises LinkError."""
        self._link.renew_certificate()

    async def _publish(self, channel: Channel, data: bytes, *, timeout_s: float = 30.0) -> None:
        await self._link.publish(str(self._topic(channel)), data, retain=channel in RETAINED, timeout_s=timeout_s)

    # receiving ----

    async def _take(self, message: Message) -> None:
        try:
            topic = parse_topic(message.topic)
            if topic.fleet == self._fleet and topic.device in (self._device, EVERYBODY):
                await self._dispatch(topic, message.payload)
        except ProtocolError as error:
            log.warning("ignored a message on %s: %s", message.topic[:256], error)

    async def _dispatch(self, topic: Topic, payload: bytes) -> None:
        if topic.channel in BULK:
            self._take_block(topic, payload)
        elif topic.channel is Channel.REFUSAL:
            self._deliver(parse(FetchRefusal, payload))
        elif topic.channel is Channel.DESIRED and payload:  # an empty retained message is a cleared one
            if self.on_desired is not None:
                self.on_desired(payload)
        elif topic.channel is Channel.RENEWED and self.on_renewed is not None:
            self.on_renewed(payload)
        elif topic.channel is Channel.COMMAND and self.on_command is not None:
            await self.on_command(payload)

    def _take_block(self, topic: Topic, payload: bytes) -> None:
        shared = topic.device == EVERYBODY
        if topic.sha256 not in [fetcher.wanted for fetcher in self.fetchers]:
            if shared and topic.sha256 != self._unfollowed:
                # The broker remembers a subscription of an earlier process, or has sent this before it was ended.
                self.unfollow(topic.sha256)
            return
        # One byte too many tells as much as all of them, and takes less memory while it waits.
        data = payload[: LIMITS.block_bytes + 1]
        self._deliver(Block(topic.sha256, topic.offset, data, topic.channel is Channel.PACKED, shared))

    def _deliver(self, item: Block | FetchRefusal) -> None:
        for fetcher in self.fetchers:
            fetcher.deliver(item)

    # presence ----

    def _will(self) -> Will:
        self.session = self._next_session
        self._next_session += 1
        return Will(str(self._topic(Channel.PRESENCE)), self._presence(online=False).to_bytes())

    async def _connected(self) -> None:
        await self._publish(Channel.PRESENCE, self._presence(online=True).to_bytes())
        log.info("connected to the broker, session %d", self.session)
        self._on_connected()

    def _presence(self, *, online: bool) -> Presence:
        return Presence(device=self._device, session=self.session, online=online, board=self._board)

    def _topic(self, channel: Channel) -> Topic:
        return Topic(self._fleet, self._device, channel)
