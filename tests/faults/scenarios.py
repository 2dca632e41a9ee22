"""What a device goes through while faults are injected: how it begins, what is done, and how it must end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.model_bundles import ModelBundle
from tests.faults.devices import Device, Source, check, repair, start_and_stop

from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.durable import Disk

Bundles = list[ModelBundle]


@dataclass(frozen=True)
class Scenario:
    """Bundles are numbered from 0: 0 is the previous one at the beginning, 1 the current one, 2 comes.

    Of the two variants of bundle 3 the one that runs best is not the one that is told to.
    """

    name: str
    perform: Callable[[Device, Bundles], Coroutine[Any, Any, None]]
    serves: int
    """Number of the bundle that serves in the end."""
    phase: str = "confirmed"
    refused: int | None = None
    crashing: int | None = None
    between: tuple[int, ...] = (1, 2)
    """Which may serve meanwhile."""
    damaged: bool = False

    def prepare(self, state: Path, bundles: Bundles) -> Path:
        """Make the state that it begins with."""
        return prepare(state, bundles)

    def device(self, state: Path, disk: Disk, bundles: Bundles) -> Device:
        """Return the device as after a start."""
        refused = None if self.refused is None else bundles[self.refused]
        crashing = None if self.crashing is None else bundles[self.crashing]
        return Device(state, disk, Source(*bundles), refused=refused, crashing=crashing)

    def run(self, state: Path, disk: Disk, bundles: Bundles) -> Device:
        """Start the device and let everything happen."""
        device = self.device(state, disk, bundles)
        asyncio.run(self.perform(device, bundles))
        return device

    def check_between(self, state: Path, bundles: Bundles) -> None:
        """Something serves: old or new, and whole."""
        if not self.damaged:  # there, only the previous one is whole until the other is fetched again
            check(state, *(bundles[number] for number in self.between))

    def check_end(self, state: Path, bundles: Bundles) -> None:
        """It has come to its end, as if nothing had happened."""
        check(state, bundles[self.serves])
        report = self.device(state, Disk(), bundles).updater.report()
        assert report is not None and report.phase == self.phase, report

    def finish(self, state: Path, bundles: Bundles) -> None:
        """Start once more, and do what is done by itself, such as the garbage collection."""
        asyncio.run(start_and_stop(self.device(state, Disk(), bundles)))


async def _deploy(device: Device, bundles: Bundles) -> None:
    await device.deploy(3, bundles[2])


async def _contest(device: Device, bundles: Bundles) -> None:
    await device.deploy(3, bundles[3])


async def _repair(device: Device, bundles: Bundles) -> None:
    await repair(device, bundles[1])


async def _roll_back(device: Device, bundles: Bundles) -> None:
    await device.models.switch(device.updater.slots.current)
    await device.updater.roll_back("c1")  # as often as the fleet sends the command


UPDATE = Scenario("an update with its probation", _deploy, serves=2)
OFFENCE = Scenario("going back from a probation", _deploy, serves=1, phase="failed", crashing=2)
CONTEST = Scenario("an update with a variant of unknown speed", _contest, serves=3, between=(1, 3))
REFUSAL = Scenario("a refused bundle", _deploy, serves=1, phase="failed", refused=2, between=(1,))
REPAIR = Scenario("a repair", _repair, serves=1, damaged=True)
ROLLBACK = Scenario("a rollback by command", _roll_back, serves=0, phase="failed", between=(0, 1))
SCENARIOS = (UPDATE, CONTEST, OFFENCE, REFUSAL, REPAIR)


def prepare(state: Path, bundles: Bundles) -> Path:
    """Make the state of a device that serves the first two bundles as previous and current."""
    device = Device(state, Disk(), Source(*bundles))
    asyncio.run(device.deploy(1, bundles[0]))
    asyncio.run(device.deploy(2, bundles[1]))
    check(state, bundles[1])
    return state


def damage(state: Path, bundle: ModelBundle) -> None:
    """Spoil the model of an installed bundle on the disk, in its tree and as an object."""
    model = state / "bundles" / bundle.reference.manifest_sha256 / "variants/fp32/model.onnx"
    digest = sha256_of_file(model)
    for path in (model, state / "objects" / digest[:2] / digest):
        with path.open("r+b") as file:
            file.write(bytes(100))
