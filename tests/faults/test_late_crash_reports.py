"""The word that a bundle's workers crash comes late: the bundle is whole again, and must not be condemned for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.model_bundles import ModelBundle
from tests.faults.devices import Device, Source, installed

from autoglm_edge_agent.updates.states import State
from autoglm_edge_protocol.deployment import Installed, Reason
from autoglm_edge_protocol.durable import Disk

CRASHED = Reason(code="worker-crashed", message="of the time before the repair")


@pytest.fixture
def device(beginning: Path, bundles: list[ModelBundle]) -> Device:
    """A device that fetches its current bundle again."""
    device = Device(beginning, Disk(), Source(*bundles))
    journal = device.updater._journal
    journal.begin(journal.record.renew())
    return device


@contextlib.asynccontextmanager
async def running(device: Device) -> AsyncIterator[None]:
    task = asyncio.create_task(device.updater.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(device: Device, state: State) -> None:
    async with asyncio.timeout(20):
        while device.updater._journal.record.state is not state:
            await asyncio.sleep(0.001)


async def test_it_waited_for_the_switch_to_the_repaired_bundle(device: Device, bundles: list[ModelBundle]) -> None:
    switching = device.updater._journal.switching
    async with switching:
        report = asyncio.create_task(device.updater.unserviceable(installed(bundles[1]), CRASHED))
        async with running(device):
            await until(device, State.ACTIVATING)
            switching.release()
            try:
                assert await report == installed(bundles[1])
                await until(device, State.CONFIRMED)
            finally:
                await switching.acquire()
    assert device.updater.slots.current == installed(bundles[1])


async def test_the_repair_goes_on_while_it_looks_for_damage(
    device: Device, bundles: list[ModelBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, done = threading.Event(), threading.Event()
    forget_damaged = device.store.forget_damaged

    def slowly(which: Installed) -> list[str]:
        looking.set()
        wait_until(done.is_set, 20, "the repair never came to its switch")
        return forget_damaged(which)

    monkeypatch.setattr(device.store, "forget_damaged", slowly)
    report = asyncio.create_task(device.updater.unserviceable(installed(bundles[1]), CRASHED))
    await asyncio.to_thread(looking.wait, 20)
    async with running(device):
        await until(device, State.ACTIVATING)
        done.set()
        assert await report == installed(bundles[0]), "meanwhile the one before serves"
        await until(device, State.CONFIRMED)
    assert device.updater.slots.current == installed(bundles[1])
