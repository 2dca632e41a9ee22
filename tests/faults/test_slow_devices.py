"""Twenty devices fetch a bundle at once, two of them over thin lines: the others do not wait for these."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker, available_kinds
from tests.fakes.bundles import make_bundle
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.light_devices import LightDevice
from tests.fakes.memory import MemoryWatch
from tests.fakes.proxies import Proxy
from tests.faults.transfers import (
    GROWTH_BYTES,
    MOST_OUTSTANDING,
    installed_files,
    reference_of,
    source_files,
    useful_blocks,
)

pytestmark = pytest.mark.slow

FAST, SLOW = 18, 2
BUNDLE_BYTES = 3_000_000
SLOW_BYTES_PER_S = 300_000
BROKER_GROWTH_BYTES = SLOW * MOST_OUTSTANDING * 64 * 1024 + 4 * 1024 * 1024
"""What slow devices have asked for and not taken waits in the broker; the fast ones' blocks are gone at once."""
LAG = 0.5
"""Where the slow devices may be at most when the last fast one is there. In step with them they would be at its end."""


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.1)


async def test_eighteen_fast_devices_do_not_wait_for_two_slow_ones(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", payload_bytes=BUNDLE_BYTES)
    reference = reference_of(bundle)
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(Broker(available_kinds()[0], tmp_path / "broker"))
        side = stack.enter_context(FleetProcess(tmp_path / "fleet", broker.url))
        side.fleet.publish(bundle)
        urls = [broker.url] * FAST
        for _ in range(SLOW):
            proxy = stack.enter_context(Proxy(broker.port))
            proxy.throttle(SLOW_BYTES_PER_S)
            urls.append(proxy.url)
        devices = [
            await stack.enter_async_context(LightDevice(tmp_path / f"dev{n}", url, side.fleet.config.name, f"dev{n}"))
            for n, url in enumerate(urls)
        ]
        await wait_for(lambda: len(side.fleet.device_names()) == len(devices))
        fast, slow = devices[:FAST], devices[FAST:]
        pids = {"controller": lambda: side.pid, "broker": lambda: broker.pid or 0}
        memory = stack.enter_context(MemoryWatch(pids))
        work = [asyncio.create_task(device.fetch(reference)) for device in devices]
        await asyncio.gather(*work[:FAST])
        lag = [device.verified_bytes / BUNDLE_BYTES for device in slow]
        await asyncio.gather(*work[FAST:])
        assert side.stop() == 0
        sent = {device.name: device.sent_blocks for device in side.fleet.devices()}
        growth = memory.growth_bytes
    times = [statistics.median(each.took_s or 0.0 for each in group) for group in (fast, slow)]
    print(f"fast {times[0]:.1f} s, slow {times[1]:.1f} s, which were at {lag} then; memory {growth}")
    for device in devices:
        assert installed_files(device.store.bundle_path(reference)) == source_files(bundle)
    assert max(lag) < LAG
    useful = useful_blocks(bundle)
    # No connection was lost: a device asks again only when nothing has come for two seconds, which on two busy cores
    # may happen once to some.
    assert all(useful <= blocks <= useful + MOST_OUTSTANDING for blocks in sent.values()), sent
    assert growth["controller"] <= GROWTH_BYTES
    assert growth["broker"] <= BROKER_GROWTH_BYTES
