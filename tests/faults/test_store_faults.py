"""A whole update in one process, with a fault at every single operation of the file system in turn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.model_bundles import ModelBundle
from tests.faults import points
from tests.faults.devices import Device, Models, Source, check, files, start_and_stop
from tests.faults.disks import FULL_OR_FAILING, FaultyDisk, PowerLost, failing_at, power_lost_at
from tests.faults.messages import FOLDER, MESSAGES, MessageScenario
from tests.faults.scenarios import SCENARIOS, UPDATE, Scenario, damage

from autoglm_edge_protocol.deployment import Installed, Reason
from autoglm_edge_protocol.durable import Disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NO_FAULT = failing_at(-1, errno.EIO)
Bundles = list[ModelBundle]


class Ground:
    """Copies of one beginning, and what an undisturbed run makes of it."""

    def __init__(
        self, scenario: Scenario | MessageScenario, beginning: Path, directory: Path, bundles: Bundles
    ) -> None:
        self.scenario = scenario
        self._beginning = beginning
        self._directory = directory
        self.bundles = bundles
        state, disk = self.copy("undisturbed"), FaultyDisk(NO_FAULT)
        scenario.run(state, disk, bundles)
        scenario.check_end(state, bundles)
        self.operations = len(disk.operations)
        scenario.finish(state, bundles)
        self._files = files(state)
        shutil.rmtree(state)

    def copy(self, name: str) -> Path:
        state = self._directory / name
        shutil.copytree(self._beginning, state)
        if self.scenario.damaged:
            damage(state, self.bundles[1])
        return state

    def each_point(self, fault: str, disturb: Callable[[Path, int], bool]) -> None:
        """Disturb every operation; `disturb` says whether the fault was really injected."""
        for point in range(self.operations):
            state = self.copy(str(point))
            assert disturb(state, point), f"{fault} at {point} was never injected"
            points.injected(self.scenario.name, fault, point)
            self.scenario.check_end(state, self.bundles)
            self.scenario.finish(state, self.bundles)
            assert files(state) == self._files, f"{fault} at {point}"
            shutil.rmtree(state)
        print(f"{self.scenario.name}, {fault}: {self.operations} points, each survived")


@pytest.fixture(params=[*SCENARIOS, MESSAGES, FOLDER], ids=lambda scenario: scenario.name)
def ground(request: pytest.FixtureRequest, quick: None, memory_path: Path, bundles: Bundles) -> Ground:
    scenario = request.param
    return Ground(scenario, scenario.prepare(memory_path / "beginning", bundles), memory_path, bundles)


@pytest.mark.parametrize(("number", "times"), [(errno.ENOSPC, 1), (errno.EIO, 1), (errno.ENOSPC, 7)])
def test_an_error_at_any_operation(ground: Ground, number: int, times: int) -> None:
    """The device waits and converges by itself, in the same process."""
    scenario, bundles = ground.scenario, ground.bundles

    def disturb(state: Path, point: int) -> bool:
        disk = FaultyDisk(failing_at(point, number, times))
        try:
            scenario.run(state, disk, bundles)
        except OSError:  # at the very start, where the agent gives up and is started again
            scenario.check_between(state, bundles)
            scenario.run(state, Disk(), bundles)
        return len(disk.operations) > point

    ground.each_point(f"{errno.errorcode[number]}{f' {times} times' if times > 1 else ''}", disturb)


@pytest.mark.parametrize("second", [None, 11])
def test_the_process_ends_at_any_operation(ground: Ground, second: int | None) -> None:
    """All objects are abandoned and new ones made on the same directory; `second`: again soon after the start."""
    scenario, bundles = ground.scenario, ground.bundles

    def disturb(state: Path, point: int) -> bool:
        disk = FaultyDisk(power_lost_at(point))
        for each in (disk, None if second is None else FaultyDisk(power_lost_at(second))):
            if each is not None:
                with contextlib.suppress(PowerLost):
                    scenario.run(state, each, bundles)
            scenario.check_between(state, bundles)
        scenario.run(state, Disk(), bundles)
        return len(disk.operations) > point

    ground.each_point("the end of the process" + (" twice" if second else ""), disturb)


@pytest.mark.parametrize("number", FULL_OR_FAILING, ids=errno.errorcode.get)
def test_an_error_at_any_operation_of_a_rollback(
    beginning: Path, memory_path: Path, bundles: Bundles, number: int
) -> None:
    """It is done or refused; slots, record and what is served agree, at the latest after the next start."""
    last = None
    point = -1
    while last is None or point < last:
        state = memory_path / f"rollback-{point}"
        shutil.copytree(beginning, state)
        disk = FaultyDisk(NO_FAULT)
        device = Device(state, disk, Source(*bundles))
        start = len(disk.operations)
        disk._fault = failing_at(start + point, number) if point >= 0 else NO_FAULT
        done = asyncio.run(_roll_back(device))
        last = len(disk.operations) - start if last is None else last
        if point >= 0:
            points.injected("a rollback by command", errno.errorcode[number], point)
        check(state, bundles[0] if done else bundles[1])
        device = Device(state, Disk(), Source(*bundles))
        asyncio.run(start_and_stop(device))
        report = device.updater.report()
        assert report is not None and report.phase == ("failed" if done else "confirmed")
        point += 1
    print(f"rollback with {errno.errorcode[number]}: {last} points")


async def _roll_back(device: Device) -> bool:
    await device.models.switch(device.updater.slots.current)
    try:
        await device.updater.roll_back("c1")
    except OSError:
        return device.updater.slots.last_rollback == "c1"
    assert device.models.serving == device.updater.slots.current
    return True


def test_the_update_takes_chunks_from_the_installed_bundles(beginning: Path, bundles: Bundles) -> None:
    """Without this the faults above would not be of copying."""
    report = UPDATE.run(beginning, Disk(), bundles).updater.report()
    assert report is not None and report.present_bytes > 100_000 and report.fetched_bytes > 10_000
    assert report.present_bytes + report.fetched_bytes == report.total_bytes


class Defective(Models):
    """Fails once in a way that nobody foresaw."""

    failed = False

    async def try_out(self, installed: Installed) -> None:
        if not self.failed:
            self.failed = True
            raise ZeroDivisionError("a defect")
        await super().try_out(installed)


def test_a_defect_in_a_step_does_not_end_the_agent(
    beginning: Path, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    device = UPDATE.device(beginning, Disk(), bundles)
    journal = device.updater._journal
    real = journal.hinder

    def hear(hindrance: Reason | None) -> None:
        heard.extend([hindrance.code] if hindrance else [])
        real(hindrance)

    monkeypatch.setattr(journal, "hinder", hear)
    device.models = Defective(device.store, None, None)
    monkeypatch.setattr(device.updater, "_models", device.models)
    monkeypatch.setattr(device.updater._loop._steps, "_models", device.models)
    asyncio.run(device.deploy(3, bundles[2]))
    report = device.updater.report()
    assert report is not None and report.phase == "confirmed"
    assert heard == ["internal-error"]
