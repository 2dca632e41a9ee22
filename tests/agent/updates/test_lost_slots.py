"""The slots are lost with a loss of power in mid-update: what the update was to bring serves all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from tests.fakes.model_bundles import make_model_bundle
from tests.faults.devices import Device, Source, check
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
    running = asyncio.create_task(device.updater.run())
    await device._ended(running, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    check(place, second)
