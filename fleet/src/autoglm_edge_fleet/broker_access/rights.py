"""Who may publish and subscribe to what: the one table that every broker's files are made of.

Levels of a topic are written as in MQTT, with SELF where the device's own name stands, or what a board has made up.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import EVERYBODY
from autoglm_edge_protocol.topics import BULK, OF_DEVICE, PREFIX, TO_BOARD, TO_DEVICE, Channel

FLEET_USER = "the.fleet"
"""The common name of the fleet's own certificate. No device has a dot in its name."""
SELF = "{self}"
LARGEST_MESSAGE_BYTES = 2 * LIMITS.control_bytes
"""Strangers may publish on the listener without certificates: nobody needs more than this."""
MOST_CONNECTED_BOARDS = 500
"""At a time, on that listener."""


@dataclass(frozen=True)
class Rights:
    """Topic filters."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def device_rights(fleet: str) -> Rights:
    """Return what a device may do with its own topics, and with what all devices get."""
    own = [_filter(fleet, SELF, channel) for channel in TO_DEVICE if channel not in TO_BOARD]
    shared = [_filter(fleet, EVERYBODY, channel) for channel in BULK]
    return Rights(tuple(_filter(fleet, SELF, channel) for channel in OF_DEVICE), (*own, *shared))


def board_rights(fleet: str) -> Rights:
    """Return what a board may do that is no device yet."""
    return Rights(
        (_filter(fleet, SELF, Channel.ENROLMENT),), tuple(_filter(fleet, SELF, channel) for channel in TO_BOARD)
    )


def fleet_rights(fleet: str) -> Rights:
    """Return what the fleet itself may do: say what is the fleet's to say, to whomever, and hear everything."""
    return Rights(
        tuple(_filter(fleet, "+", channel) for channel in TO_DEVICE),
        tuple(_filter(fleet, "+", channel) for channel in Channel),
    )


def _filter(fleet: str, device: str, channel: Channel) -> str:
    return f"{PREFIX}/{fleet}/{device}/{channel.value}" + ("/+/+" if channel in BULK else "")
