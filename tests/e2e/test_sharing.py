"""Many devices and one file: real fleet, real broker, the agent's own link and fetcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.agents import FLEET, wait_until
from tests.fakes.brokers import Broker
from tests.fakes.bundles import make_bundle
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.light_devices import LightDevice

from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.storage.store import files_here
from autoglm_edge_agent.updates.contents import read_manifest
from autoglm_edge_fleet.local_broker import LocalBroker
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.names import BundleId

SIZE = 6_000_000


def _publish(served: FleetProcess, directory: Path) -> BundleReference:
    return served.fleet.publish(make_bundle(directory, payload_bytes=SIZE)).bundle.reference


@asynccontextmanager
async def _devices(
    served: FleetProcess,
    broker: LocalBroker,
    directory: Path,
    reference: BundleReference,
    each: Sequence[dict[str, Any]],
) -> AsyncIterator[list[LightDevice]]:
    """Connect a device with each of these settings, and tell the fleet to bring the bundle to all of them."""
    names = [f"dev{number}" for number in range(len(each))]
    async with AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(LightDevice(directory / name, broker.url, FLEET, name, **transfer))
            for name, transfer in zip(names, each, strict=True)
        ]
        fleet = served.fleet
        seen = lambda: sum(device.online for device in fleet.devices()) == len(names)  # noqa: E731
        await asyncio.to_thread(wait_until, seen, 30, "the fleet did not see all devices")
        fleet.deploy(BundleId(name=reference.name, version=reference.version), names)
        yield devices


def _check(device: LightDevice, reference: BundleReference) -> None:
    manifest = read_manifest(device.store, reference)
    for entry in files_here(manifest, manifest.variants[0]):
        assert sha256_of_file(device.store.bundle_path(reference) / entry.path) == entry.sha256


async def _sent(served: FleetProcess, at_least: int) -> int:
    """Wait until the daemon has written down what it has sent."""
    counted = lambda: served.fleet.egress().size_bytes >= at_least  # noqa: E731
    await asyncio.to_thread(wait_until, counted, 20, "the fleet has counted too little")
    return served.fleet.egress().size_bytes


async def test_a_cohort_gets_one_copy(fleet_side: FleetProcess, broker: Broker, tmp_path: Path) -> None:
    reference = _publish(fleet_side, tmp_path / "bundle")
    async with _devices(fleet_side, broker, tmp_path, reference, [{}] * 8) as devices:
        await asyncio.gather(*(device.fetch(reference) for device in devices))
        for device in devices:
            _check(device, reference)
        # One copy of the model, and to each its own of what is smaller than two blocks.
        assert await _sent(fleet_side, SIZE) < 1.05 * SIZE + 8 * 32_768


async def test_who_has_a_cap_and_who_does_not_share_pull(
    fleet_side: FleetProcess, broker: Broker, tmp_path: Path
) -> None:
    reference = _publish(fleet_side, tmp_path / "bundle")
    cap = 2_000_000
    settings: list[dict[str, Any]] = [{}, {}, {"max_bytes_per_s": cap}, {"share": False}]
    async with _devices(fleet_side, broker, tmp_path, reference, settings) as devices:
        await asyncio.gather(*(device.fetch(reference) for device in devices))
        for device in devices:
            _check(device, reference)
        took_s = devices[2].took_s
        assert took_s is not None
        assert took_s >= SIZE / cap - 1  # less the burst of a second
        sent = await _sent(fleet_side, 3 * SIZE)
        assert 3 * SIZE < sent < 3.3 * SIZE
        by_name = {device.name: device.sent_bytes for device in fleet_side.fleet.devices()}
        assert by_name["dev0"] < SIZE / 4
        assert by_name["dev2"] > SIZE
        assert by_name["dev3"] > SIZE


async def test_who_comes_late_gets_all(fleet_side: FleetProcess, broker: Broker, tmp_path: Path) -> None:
    reference = _publish(fleet_side, tmp_path / "bundle")
    async with _devices(fleet_side, broker, tmp_path, reference, [{}] * 3) as devices:
        first = [asyncio.create_task(device.fetch(reference)) for device in devices[:2]]
        while devices[0].verified_bytes < SIZE / 3:
            await asyncio.sleep(0.005)
        await devices[2].fetch(reference)
        await asyncio.gather(*first)
        for device in devices:
            _check(device, reference)


async def test_a_stream_outlives_the_fleet(fleet_side: FleetProcess, broker: Broker, tmp_path: Path) -> None:
    reference = _publish(fleet_side, tmp_path / "bundle")
    async with _devices(fleet_side, broker, tmp_path, reference, [{}] * 3) as devices:
        fetches = [asyncio.create_task(device.fetch(reference)) for device in devices]
        while devices[0].verified_bytes < SIZE / 3:
            await asyncio.sleep(0.005)
        fleet_side.kill()
        fleet_side.start()
        await asyncio.gather(*fetches)
        for device in devices:
            _check(device, reference)


async def test_nothing_is_fetched_in_quiet_hours(fleet_side: FleetProcess, broker: Broker, tmp_path: Path) -> None:
    reference = _publish(fleet_side, tmp_path / "bundle")
    settings = [{"quiet_hours": "00:00-23:59"}, {"quiet_hours": "23:59-00:00"}]  # one minute is left open, and closed
    async with _devices(fleet_side, broker, tmp_path, reference, settings) as devices:
        outcomes = await asyncio.gather(*(device.fetch(reference) for device in devices), return_exceptions=True)
        hindered = [outcome for outcome in outcomes if isinstance(outcome, Hindrance)]
        assert [hindrance.reason.code for hindrance in hindered] == ["quiet-hours"]
        assert outcomes.count(None) == 1
        assert "quiet hours" in hindered[0].reason.message


async def test_blocks_are_as_small_as_the_broker_wants_them(tmp_path: Path) -> None:
    with (
        Broker("mosquitto", tmp_path / "broker", "max_packet_size 20000\n") as broker,
        FleetProcess(tmp_path / "fleet", broker.url) as served,
    ):
        reference = _publish(served, tmp_path / "bundle")
        wait_until(lambda: "blocks of 19488 bytes" in served.log.read_text(), 20, "the fleet did not learn the limit")
        async with _devices(served, broker, tmp_path, reference, [{}] * 2) as devices:
            await asyncio.gather(*(device.fetch(reference) for device in devices))
            for device in devices:
                _check(device, reference)
