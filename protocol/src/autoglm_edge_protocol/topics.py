"""Topics, built and parsed here and nowhere else.

    autoglm/v1/FLEET/DEVICE/desired                 retained   fleet -> device   SignedMessage of a DesiredState
    autoglm/v1/FLEET/DEVICE/reported                retained   device -> fleet   ReportedState
    autoglm/v1/FLEET/DEVICE/presence                retained   device -> fleet   Presence, also the will
    autoglm/v1/FLEET/DEVICE/command                            fleet -> device   SignedMessage of a Command
    autoglm/v1/FLEET/DEVICE/answer                             device -> fleet   Answer
    autoglm/v1/FLEET/DEVICE/telemetry                          device -> fleet   TelemetryBatch
    autoglm/v1/FLEET/DEVICE/fetch                              device -> fleet   FetchRequest
    autoglm/v1/FLEET/DEVICE/refusal                            fleet -> device   FetchRefusal
    autoglm/v1/FLEET/DEVICE/credit                             device -> fleet   StreamCredit
    autoglm/v1/FLEET/DEVICE/renewal                            device -> fleet   RenewalRequest
    autoglm/v1/FLEET/DEVICE/renewed                            fleet -> device   RenewalAnswer
    autoglm/v1/FLEET/REQUEST/enrolment                         board -> fleet    EnrolmentRequest
    autoglm/v1/FLEET/REQUEST/enrolled                          fleet -> board    EnrolmentAnswer
    autoglm/v1/FLEET/DEVICE/block/SHA256/OFFSET                fleet -> device   raw bytes of a file
    autoglm/v1/FLEET/DEVICE/packed/SHA256/OFFSET               fleet -> device   the same, compressed
    autoglm/v1/FLEET/_all/block|packed/SHA256/OFFSET           fleet -> devices  the same, to all that follow the file

At most 7 slashes and `[A-Za-z0-9_-]` only in a level, so that AWS IoT Core and NATS carry them too; a device
subscribes to five or six filters and one more for each file that it follows, a fleet to eight. REQUEST is what a board
without an identity makes up (`enrolment.RequestId`), a level as DEVICE is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from autoglm_edge_protocol.errors import MalformedTopic
from autoglm_edge_protocol.names import EVERYBODY, LEVEL_PATTERN

PREFIX = "autoglm/v1"
_LEVEL = re.compile(LEVEL_PATTERN)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OFFSET = re.compile(r"0|[1-9][0-9]{0,14}")


class Channel(str, Enum):
    """What a topic carries."""

    DESIRED = "desired"
    REPORTED = "reported"
    PRESENCE = "presence"
    COMMAND = "command"
    ANSWER = "answer"
    TELEMETRY = "telemetry"
    FETCH = "fetch"
    CREDIT = "credit"
    REFUSAL = "refusal"
    RENEWAL = "renewal"
    RENEWED = "renewed"
    ENROLMENT = "enrolment"
    ENROLLED = "enrolled"
    BLOCK = "block"
    PACKED = "packed"


TO_BOARD = (Channel.ENROLLED,)
"""What a board subscribes to before it is a device."""
OF_IDENTITY = (Channel.RENEWED,)
"""What concerns only devices with a certificate of the fleet: access lists from before there were any refuse these."""
TO_DEVICE = (
    Channel.DESIRED,
    Channel.COMMAND,
    Channel.REFUSAL,
    *OF_IDENTITY,
    *TO_BOARD,
    Channel.BLOCK,
    Channel.PACKED,
)
OF_DEVICE = (
    Channel.REPORTED,
    Channel.PRESENCE,
    Channel.ANSWER,
    Channel.TELEMETRY,
    Channel.FETCH,
    Channel.CREDIT,
    Channel.RENEWAL,
)
"""What a device says."""
TO_FLEET = (*OF_DEVICE, Channel.ENROLMENT)
RETAINED = (Channel.DESIRED, Channel.REPORTED, Channel.PRESENCE)
"""What the broker keeps for those who come later."""
BULK = (Channel.BLOCK, Channel.PACKED)
"""Channels whose topics name bytes."""
AT_MOST_ONCE = (*BULK, Channel.FETCH, Channel.REFUSAL, Channel.CREDIT)
"""What is said or asked for again when it is lost, so that QoS 0 will do. None of it waits behind a control message
that is being handled: that one may be waiting for the very answer."""


@dataclass(frozen=True)
class Topic:
    """A parsed topic. `sha256` and `offset` are set for bulk data only, whose `device` may be `EVERYBODY`."""

    fleet: str
    device: str
    channel: Channel
    sha256: str = ""
    offset: int = 0

    def __post_init__(self) -> None:
        """Refuse what would make another topic or a filter. Raises MalformedTopic."""
        _check_levels(self.fleet, self.device)
        if self.channel not in BULK:
            if self.device == EVERYBODY:
                raise MalformedTopic(f"{EVERYBODY} is no device")
            if self.sha256 or self.offset:
                raise MalformedTopic("only the topic of a block names bytes")
        elif not _DIGEST.fullmatch(self.sha256) or not 0 <= self.offset < 10**15:
            raise MalformedTopic(f"{self.sha256[:80]!r} and {self.offset} do not say which bytes a block holds")

    def __str__(self) -> str:
        base = f"{PREFIX}/{self.fleet}/{self.device}/{self.channel.value}"
        return f"{base}/{self.sha256}/{self.offset}" if self.channel in BULK else base


def parse_topic(text: str) -> Topic:
    """Read a topic. Raises MalformedTopic."""
    levels = text.split("/")
    if len(text) > 256 or len(levels) not in (5, 7) or "/".join(levels[:2]) != PREFIX:
        raise MalformedTopic(f"{text[:256]!r} is not a topic of this protocol")
    fleet, device, channel_name = levels[2:5]
    try:
        channel = Channel(channel_name)
    except ValueError:
        raise MalformedTopic(f"{text!r} names no known channel") from None
    if (channel in BULK) != (len(levels) == 7):
        raise MalformedTopic(f"{text!r} has the wrong number of levels")
    if channel not in BULK:
        return Topic(fleet, device, channel)
    sha256, offset = levels[5:]
    if not _OFFSET.fullmatch(offset):
        raise MalformedTopic(f"{text!r} does not say which bytes it holds")
    return Topic(fleet, device, channel, sha256, int(offset))


def qos_of(channel: Channel) -> int:
    """Return the QoS with which a channel is published and subscribed."""
    return 0 if channel in AT_MOST_ONCE else 1


def device_filters(fleet: str, device: str, enrolled: bool = False) -> dict[str, int]:
    """Return the filters a device subscribes to, with their QoS: bulk data at 0, the rest at 1.

    `enrolled`: it has an identity of the fleet, and is told of a new certificate.

    Raises MalformedTopic.
    """
    _check_levels(fleet, device)
    others = TO_BOARD if enrolled else (*TO_BOARD, *OF_IDENTITY)
    return {_filter(fleet, device, channel): qos_of(channel) for channel in TO_DEVICE if channel not in others}


def board_filters(fleet: str, request_id: str) -> dict[str, int]:
    """Return the filters that a board subscribes to that is no device yet, with their QoS. Raises MalformedTopic."""
    _check_levels(fleet, request_id)
    return {_filter(fleet, request_id, channel): qos_of(channel) for channel in TO_BOARD}


def fleet_filters(fleet: str) -> dict[str, int]:
    """Return the filters a fleet subscribes to, with their QoS: what is said about bulk data at 0, the rest at 1.

    Raises MalformedTopic.
    """
    _check_levels(fleet)
    return {_filter(fleet, "+", channel): qos_of(channel) for channel in TO_FLEET}


def shared_filter(fleet: str, sha256: str) -> str:
    """Return the filter of what all that follow a file get, packed or not. Raises MalformedTopic."""
    Topic(fleet, EVERYBODY, Channel.BLOCK, sha256)
    return f"{PREFIX}/{fleet}/{EVERYBODY}/+/{sha256}/+"


def _check_levels(*names: str) -> None:
    for name in names:
        if not _LEVEL.fullmatch(name):
            raise MalformedTopic(f"{name[:80]!r} is no level of a topic: 1 to 64 of A-Z a-z 0-9 _ -")


def _filter(fleet: str, device: str, channel: Channel) -> str:
    tail = "/+/+" if channel in BULK else ""
    return f"{PREFIX}/{fleet}/{device}/{channel.value}{tail}"
