"""What brokers carry: known limits by name, and what a broker says of itself.

MQTT 3.1.1 has no word for the largest packet: a broker that gets a larger one breaks the connection. MQTT 5 brokers
announce it in their CONNACK (section 3.2.2.3.6), so one short connection of that version asks for it; where that fails
nothing is lost.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from autoglm_edge_protocol.address import BrokerAddress, tls_context
from autoglm_edge_protocol.limits import LIMITS

_OVERHEAD_BYTES = 512
"""Topic and headers of a packet with a block, rounded up."""
_ASK_S = 3.0


@dataclass(frozen=True)
class BrokerProfile:
    """What a kind of broker carries by default."""

    max_packet_bytes: int
    publishes_per_s: float | None = None
    """What one connection may publish; None: as much as it can."""


PROFILES = {
    "mosquitto": BrokerProfile(2_000_000),
    "emqx": BrokerProfile(1024 * 1024),
    "hivemq": BrokerProfile(256 * 1024 * 1024),
    "nats": BrokerProfile(1024 * 1024),
    "rabbitmq": BrokerProfile(16 * 1024 * 1024),
    "aws-iot": BrokerProfile(128 * 1024, publishes_per_s=100.0),
    "thingsboard": BrokerProfile(65_536),
}
"""Mosquitto since 2.1 (before it carries everything), the others as their manuals say."""


def block_bytes_for(max_packet_bytes: int | None) -> int:
    """Return the largest block that fits into a packet, at least 512 bytes. Raises ValueError when none does."""
    if max_packet_bytes is None:
        return LIMITS.block_bytes
    room = max_packet_bytes - _OVERHEAD_BYTES
    if room < 512:
        raise ValueError(f"packets of {max_packet_bytes} bytes carry no block: at least {512 + _OVERHEAD_BYTES} needed")
    return min(LIMITS.block_bytes, room)


def announced_packet_bytes(address: BrokerAddress, client_id: str) -> int | None:
    """Ask the broker over MQTT 5 for its largest packet; None when it does not say, or not in time. Blocks."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
    answered = threading.Event()
    found: list[int] = []

    def connected(_c: object, _u: object, _f: object, reason: object, properties: object) -> None:
        size = getattr(properties, "MaximumPacketSize", None)
        if not getattr(reason, "is_failure", True) and isinstance(size, int):
            found.append(size)
        answered.set()

    client.on_connect = connected
    client.on_connect_fail = lambda *_: answered.set()
    client.on_disconnect = lambda *_: answered.set()
    if address.user is not None:
        client.username_pw_set(address.user, address.password)
    try:
        if address.tls:
            client.tls_set_context(tls_context(address))
        client.connect_timeout = _ASK_S
        client.connect(address.host, address.port, keepalive=10)
        client.loop_start()
        answered.wait(_ASK_S)
        client.disconnect()
        client.loop_stop()
    except (OSError, ValueError):
        return None
    return found[0] if found else None
