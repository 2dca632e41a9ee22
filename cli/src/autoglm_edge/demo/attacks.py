"""The demonstration's attacks: by one who owns the broker, by one who owns the fleet's disk, and a careless owner.

Each is refused by the device itself, which says why; nothing here tells the device that it is under attack.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from autoglm_edge.demo.errors import DemoError
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.event_loops import run
from autoglm_edge_protocol.manifest import Manifest
from autoglm_edge_protocol.mqtt import BrokerAddress, Handler, Link, Message
from autoglm_edge_protocol.names import BundleId
from autoglm_edge_protocol.topics import Channel, Topic

REFUSAL_S = 40.0
CONNECT_S = 10.0
_FLIPPED_BYTES = 4096
"""Less than any chunk has."""


@dataclass(frozen=True)
class Refused:
    """An attack, and what the device said to it."""

    attack: str
    device: str
    reason: Reason


class Burglar:
    """Owns the broker: hears what is retained there, and publishes what he likes."""

    def __init__(self, fleet: Fleet, device: str) -> None:
        self._fleet = fleet
        self._device = device
        self._topic = str(Topic(fleet.config.name, device, Channel.DESIRED))
        self._heard = b""

    def record(self) -> None:
        """Keep the desired state that the device has now, signed as it is. Raises DemoError, LinkError."""
        self._heard = run(self._listen())

    def replay(self) -> Refused:
        """Give the device the message that was recorded once more. Raises DemoError, LinkError."""
        run(self._publish(self._heard))
        return Refused("a recorded desired state, replayed", self._device, _wait(self._fleet, self._device, "replayed"))

    async def _listen(self) -> bytes:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def take(message: Message) -> None:
            heard.put_nowait(message.payload)

        link = self._link(take, {self._topic: 1})
        await link.start()
        try:
            return await asyncio.wait_for(heard.get(), CONNECT_S)
        except (asyncio.TimeoutError, TimeoutError):
            raise DemoError(f"the broker retains no desired state of {self._device}") from None
        finally:
            await link.stop()

    async def _publish(self, payload: bytes) -> None:
        async def ignore(_message: Message) -> None:
            return

        link = self._link(ignore, {})
        await link.start()
        try:
            await link.wait_connected(CONNECT_S)
            await link.publish(self._topic, payload, retain=True)
        finally:
            await link.stop()

    def _link(self, take: Handler, filters: dict[str, int]) -> Link:
        address = BrokerAddress.parse(self._fleet.config.broker)
        return Link(address, f"burglar-{uuid.uuid4().hex[:8]}", filters, take)


def go_back(fleet: Fleet, device: str, bundle: BundleId) -> Refused:
    """Deploy an older bundle without a reason for going back. Raises DemoError, FleetError."""
    fleet.deploy(bundle, [device])
    return Refused("an older version, without a reason", device, _wait(fleet, device, "downgrade"))


def deploy_tampered(fleet: Fleet, device: str, bundle: BundleId, manifest: Manifest) -> Refused:
    """Change bits of a published model behind the fleet's back, and deploy it. Raises DemoError, OSError."""
    for variant in manifest.variants:
        _flip(fleet.directory / "repository" / "objects", manifest.file(variant.model).sha256)
    ended = fleet.wait_for_deployments(fleet.deploy(bundle, [device]), REFUSAL_S)
    reason = ended[0].reason
    if reason is None or reason.code != "corrupt-data":
        raise DemoError(f"{device} did not notice that {bundle} was tampered with: {reason}")
    return Refused("a bundle whose bytes were changed", device, reason)


def _flip(objects: Path, sha256: str) -> None:
    path = objects / sha256[:2] / sha256
    data = bytearray(path.read_bytes())
    # Everywhere: what a device has of the model already it does not fetch, and a change there would go unnoticed.
    for place in range(0, len(data), _FLIPPED_BYTES):
        data[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def _wait(fleet: Fleet, device: str, code: str) -> Reason:
    deadline = time.monotonic() + REFUSAL_S
    while time.monotonic() < deadline:
        report = next(each.report for each in fleet.devices() if each.name == device)
        refusal = report.trust.refusal if report and report.trust else None
        if refusal is not None and refusal.code == code:
            return refusal
        time.sleep(0.1)
    raise DemoError(f"{device} did not refuse with {code!r} within {REFUSAL_S:.0f} s")


def tell(refused: Refused, console: Console) -> Refused:
    """Print what the device said."""
    text = f"  {refused.device} refuses {refused.attack} ({refused.reason.code}): {refused.reason.message}"
    console.print(text, markup=False, soft_wrap=True)
    return refused
