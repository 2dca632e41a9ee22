"""A device that is slower than the others: it leaves their stream, or loses what the broker drops, and pulls that."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.fakes.agents import FLEET
from tests.fakes.brokers import Broker
from tests.fakes.bundles import make_bundle
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.light_devices import LightDevice
from tests.fakes.proxies import Proxy
from tests.faults.transfers import installed_files, reference_of, source_files

from autoglm_edge_agent.updates.straggling import FAR_BEHIND_BLOCKS
from autoglm_edge_fleet.local_broker import MOSQUITTO

pytestmark = pytest.mark.slow

BLOCK_BYTES = 8192
BUNDLE_BYTES = 6_000_000
FAST_BYTES_PER_S, SLOW_BYTES_PER_S = 2_000_000, 700_000
"""At these rates the slow device is further behind than a straggler may be when half of the stream has gone by."""
SLOW = "slow"
PLENTY, SCARCE = "max_queued_messages 1000\n", "max_queued_messages 40\n"
DROPPED = f"Outgoing messages are being dropped for client autoglm-{FLEET}-{SLOW}."
UNSUBSCRIBED = f"Received UNSUBSCRIBE from autoglm-{FLEET}-{SLOW}"


def streamed(lines: list[str]) -> int:
    """Return how many blocks of streams the broker got in these lines of its log."""
    return sum("Received PUBLISH" in line and "/_all/block/" in line for line in lines)


@pytest.mark.parametrize("queue", [PLENTY, SCARCE], ids=["leaves", "dropped"])
async def test_a_device_that_cannot_keep_up(queue: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", payload_bytes=BUNDLE_BYTES)
    reference = reference_of(bundle)
    async with AsyncExitStack() as stack:
        broker = Broker(MOSQUITTO, tmp_path / "broker", f"{queue}log_type all\n")
        stack.enter_context(broker)
        side = stack.enter_context(FleetProcess(tmp_path / "fleet", broker.url))
        side.fleet.publish(bundle)
        devices = []
        for name, rate in {"one": FAST_BYTES_PER_S, "two": FAST_BYTES_PER_S, SLOW: SLOW_BYTES_PER_S}.items():
            proxy = stack.enter_context(Proxy(broker.port))
            proxy.throttle(rate)
            device = LightDevice(tmp_path / name, proxy.url, FLEET, name, block_bytes=BLOCK_BYTES)
            devices.append(await stack.enter_async_context(device))
        async with asyncio.timeout(30):
            while len(side.fleet.device_names()) < len(devices):
                await asyncio.sleep(0.1)
        side.fleet.deploy(reference.id, [device.name for device in devices])
        await asyncio.gather(*(device.fetch(reference) for device in devices))
        assert side.stop() == 0  # it writes its counters
        sent = {device.name: device.sent_blocks for device in side.fleet.devices()}
        log = broker.log_text().splitlines()
    for device in devices:
        assert installed_files(device.store.bundle_path(reference)) == source_files(bundle)
    whole = BUNDLE_BYTES // BLOCK_BYTES
    left_at = max(number for number, line in enumerate(log) if UNSUBSCRIBED in line)
    print(f"{streamed(log)} blocks streamed, {streamed(log[left_at:])} of them after it left; alone: {sent}")
    assert streamed(log) >= whole
    if queue == PLENTY:
        assert streamed(log[left_at:]) > FAR_BEHIND_BLOCKS, "it stayed to the end"
        assert DROPPED not in "\n".join(log)
    else:
        assert DROPPED in "\n".join(log)
    # It pulls what it has missed, and little of that twice.
    missed = sent[SLOW]
    assert 0 < missed < whole
    assert sent["one"] < whole / 10 and sent["two"] < whole / 10
