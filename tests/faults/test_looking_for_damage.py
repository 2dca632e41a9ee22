"""A bundle whose workers keep failing is looked at for damage, but not read as a whole every few seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes.model_bundles import ModelBundle
from tests.faults.devices import Device, Source, broken_file, installed

from autoglm_edge_agent.updates import updater
from autoglm_edge_protocol.deployment import Installed, Reason
from autoglm_edge_protocol.durable import Disk

CRASHED = Reason(code="worker-crashed", message="once more")


def damage(device: Device, which: Installed) -> None:
    tree = device.store.bundle_path(which.bundle)
    model = max((path for path in tree.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    model.write_bytes(bytes(model.stat().st_size))


async def test_what_was_found_whole_is_read_again_later(
    beginning: Path, bundles: list[ModelBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(beginning, Disk(), Source(*bundles))
    first, second = map(installed, bundles[:2])
    assert await device.updater.unserviceable(second, CRASHED) == first, "it goes back to the one before"
    assert await device.updater.unserviceable(first, CRASHED) == first, "which has none before it"
    damage(device, first)
    assert await device.updater.unserviceable(first, CRASHED) == first
    assert broken_file(beginning, first) is not None
    assert device.store.bundle_path(first.bundle).exists(), "it was found whole a moment ago"
    monkeypatch.setattr(updater, "LOOK_AGAIN_S", 0.0)
    await device.updater.unserviceable(first, CRASHED)
    assert not device.store.bundle_path(first.bundle).exists(), "it is damaged"
