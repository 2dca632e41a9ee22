"""The slots are lost with a loss of power in mid-update: what the update was to bring serves all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from tests.fakes.model_bundles import make_model_bundle
from tests.faults.devices import Device, Source, check, start_and_stop
from tests.faults.disks import PowerLost

from autoglm_edge_protocol.durable import Disk


class CutOff(Disk):
    """Loses its power when the record of the update has come to a state."""

    def __init__(self, state: str) -> None:
        self._state = state

    def promote(self, source: Path, target: Path) -> None:
        super().promote(source, target)
        if target.name == "update.json" and json.loads(target.read_bytes())["state"] == self._state:
            raise PowerLost


async def test_what_served_serves_on_beside_one_that_was_refused(tmp_path: Path) -> None:
    """Nothing tells any more which bundle was current; it is there, and nobody would send it again."""
    first, second, third = (make_model_bundle(tmp_path / version, version=version) for version in ("1", "2", "3"))
    place, source = tmp_path / "state", Source(first, second, third)
    await Device(place, Disk(), source).deploy(1, first)
    await Device(place, Disk(), source).deploy(2, second)
    await Device(place, Disk(), source, refused=third).deploy(3, third)
    assert json.loads((place / "update.json").read_bytes())["state"] == "failed"
    (place / "slots.json").write_bytes(b"\0" * 100)
    device = Device(place, Disk(), source)
    await start_and_stop(device)
    check(place, second)
    slots = device.updater.slots
    assert slots.previous is not None
    assert slots.previous.bundle == first.reference


async def test_only_what_is_whole_is_found(tmp_path: Path) -> None:
    first, second, third = (
        make_model_bundle(tmp_path / version, version=version, seed=int(version)) for version in "123"
    )
    place, source = tmp_path / "state", Source(first, second, third)
    await Device(place, Disk(), source).deploy(1, first)
    await Device(place, Disk(), source).deploy(2, second)
    await Device(place, Disk(), source, refused=third).deploy(3, third)
    (place / "slots.json").unlink()
    (model,) = (place / "bundles" / second.reference.manifest_sha256).rglob("model.onnx")
    model.write_bytes(bytes(model.stat().st_size))
    device = Device(place, Disk(), source)
    await start_and_stop(device)
    check(place, first)
    assert device.updater.slots.previous is None


@pytest.mark.parametrize("state", ["resolving", "fetching", "installing", "trying", "activating", "probation"])
async def test_what_was_desired_is_current_in_the_end(tmp_path: Path, state: str) -> None:
    first, second = (make_model_bundle(tmp_path / version, version=version) for version in ("1", "2"))
    place, source = tmp_path / "state", Source(first, second)
    await Device(place, Disk(), source).deploy(1, first)
    with contextlib.suppress(PowerLost):
        await Device(place, CutOff(state), source).deploy(2, second)
    assert json.loads((place / "update.json").read_bytes())["state"] == state
    (place / "slots.json").unlink()
    device = Device(place, Disk(), source)
    if state not in ("activating", "probation"):
        check(place, first)  # meanwhile
    running = asyncio.create_task(device.updater.run())
    await device._ended(running, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    check(place, second)
