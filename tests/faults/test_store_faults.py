"""A whole update in one process, with a fault at every single operation of the file system in turn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
from tests.faults.disks import FULL_OR_FAILING, FaultyDisk, PowerLost, failing_at, power_lost_at

from autoglm_edge_agent.config import ProbationSection
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates import loop as loop_module
from autoglm_edge_agent.updates.fetch import Block, Fetcher
from autoglm_edge_agent.updates.fit import Capabilities
from autoglm_edge_agent.updates.states import State
from autoglm_edge_agent.updates.updater import Updater
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.deployment import DesiredState, Installed, Reason
from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import MANIFEST_PATH
from autoglm_edge_protocol.probation import ShadowTerms
from autoglm_edge_protocol.transfer import FetchRequest

pytestmark = pytest.mark.slow

BOARD = Capabilities({"onnxruntime": "1.20.0"}, 1 << 34)
AT_ONCE = ProbationSection(max_duration_s=0)
NO_FAULT = failing_at(-1, errno.EIO)


class Source:
    """A fleet in the same process: answers each request at once."""

    connected = True

    def __init__(self, *bundles: ModelBundle) -> None:
        self._files: dict[str, bytes] = {}
        self.fetcher: Fetcher | None = None
        for bundle in bundles:
            self._files[bundle.reference.manifest_sha256] = (bundle.directory / MANIFEST_PATH).read_bytes()
            for entry in read_manifest(bundle.directory).files:
                self._files[entry.sha256] = (bundle.directory / entry.path).read_bytes()

    def request(self, request: FetchRequest) -> bool:
        assert self.fetcher is not None
        data = self._files[request.sha256]
        for block in request.blocks():
            start = block * request.block_bytes
            self.fetcher.deliver(Block(request.sha256, start, data[start : start + request.block_bytes]))
        return True


class Models:
    """Runs no model, but looks at the files as a worker would: a trial of damaged bytes is refused."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.serving: Installed | None = None
        self._trial: Installed | None = None

    async def try_out(self, installed: Installed) -> None:
        if damage := broken_file(self._store.directory, installed):
            raise Refusal("golden-disagreement", f"{damage} is not whole")
        self._trial = installed

    def tried(self, installed: Installed) -> bool:
        return self._trial == installed

    async def switch(self, installed: Installed | None) -> None:
        assert installed is None or broken_file(self._store.directory, installed) is None
        self.serving, self._trial = installed, None

    async def discard_trial(self) -> None:
        self._trial = None

    async def shadow(self, previous: Installed, current: Installed, terms: ShadowTerms) -> None:
        pass

    async def end_shadow(self) -> None:
        pass


def broken_file(state: Path, installed: Installed) -> str | None:
    """Return a file of an installed bundle that is missing or has other bytes."""
    tree = state / "bundles" / installed.bundle.manifest_sha256
    if not (tree / MANIFEST_PATH).is_file():
        return MANIFEST_PATH
    manifest = read_manifest(tree)
    variant = manifest.variant(installed.variant)
    assert variant is not None
    for entry in manifest.device_files(variant):
        if not (tree / entry.path).is_file() or sha256_of_file(tree / entry.path) != entry.sha256:
            return entry.path
    return None


class Device:
    """The parts of an agent that touch the disk, as after a start."""

    def __init__(self, state: Path, disk: Disk, source: Source) -> None:
        self.store = Store(state, disk)
        self.models = Models(self.store)
        fetcher = source.fetcher = Fetcher(
            self.store, source, lambda sha256, verified: self.updater.progressed(sha256, verified)
        )
        self.updater = Updater(self.store, fetcher, self.models, BOARD, 0, AT_ONCE, lambda: None)
        self.updater.resume()

    async def deploy(self, generation: int, bundle: ModelBundle | None) -> None:
        """Take a desired state and carry it out, as the agent does: what cannot be kept is tried again."""
        reference = bundle.reference if bundle else None
        desired = DesiredState(fleet="f", device="d", generation=generation, bundle=reference)
        await self.models.switch(self.updater.slots.current)
        running = asyncio.create_task(self.updater.run())
        try:
            while True:
                try:
                    await self.updater.desire(desired)
                    break
                except OSError:
                    await asyncio.sleep(0)
            await self._ended(running, generation)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, RuntimeError, PowerLost):
                await running

    async def _ended(self, running: asyncio.Task[None], generation: int) -> None:
        async with asyncio.timeout(20):
            while True:
                report = self.updater.report()
                if report and report.generation == generation and report.phase in ("confirmed", "failed"):
                    return
                if running.done():
                    await _ended(running)
                await asyncio.sleep(0.001)


async def _ended(running: asyncio.Task[None]) -> None:
    """Raise what a part of the agent ended with; the power, where it was that."""
    try:
        await running
    except RuntimeError as error:
        raise (error.__cause__ if isinstance(error.__cause__, PowerLost) else error) from None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop_module, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(loop_module, "LAST_RETRY_S", 0.002)
    logging.disable(logging.WARNING)  # thousands of faults, each with a line
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[ModelBundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [make_model_bundle(folder / str(n), version=str(n), seed=n, width=2048) for n in (1, 2, 3)]


@pytest.fixture
def beginning(tmp_path: Path, bundles: list[ModelBundle]) -> Path:
    """The state of a device that serves the first two bundles as previous and current."""
    state = tmp_path / "beginning"
    device = Device(state, Disk(), Source(*bundles))
    asyncio.run(device.deploy(1, bundles[0]))
    asyncio.run(device.deploy(2, bundles[1]))
    _check(state, bundles[1])
    return state


def _installed(bundle: ModelBundle) -> Installed:
    return Installed(bundle=bundle.reference, variant="fp32")


def _check(state: Path, *allowed: ModelBundle) -> None:
    """One of these is current, and what is in the slots is whole."""
    slots = Store(state, Disk()).read_slots()
    assert slots.current in [_installed(bundle) for bundle in allowed]
    for installed in (slots.current, slots.previous):
        assert installed is None or broken_file(state, installed) is None


def _files(state: Path) -> set[str]:
    return {str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()}


def _perform(state: Path, disk: Disk, source: Source, bundle: ModelBundle) -> None:
    device = Device(state, disk, source)
    asyncio.run(device.deploy(3, bundle))
    assert device.updater.report() is not None


def _operations(beginning: Path, tmp_path: Path, bundles: list[ModelBundle]) -> tuple[int, set[str]]:
    """Return how many operations an undisturbed update takes, and the files that are there afterwards."""
    state, disk = tmp_path / "undisturbed", FaultyDisk(NO_FAULT)
    shutil.copytree(beginning, state)
    _perform(state, disk, Source(*bundles), bundles[2])
    _check(state, bundles[2])
    return len(disk.operations), _files(state)


def _each_point(
    beginning: Path, tmp_path: Path, bundles: list[ModelBundle], disturb: Callable[[Path, int], None], what: str
) -> None:
    points, files = _operations(beginning, tmp_path, bundles)
    for point in range(points):
        state = tmp_path / f"{point}"
        shutil.copytree(beginning, state)
        disturb(state, point)
        _check(state, bundles[2])
        record = Device(state, Disk(), Source(*bundles)).updater.report()
        assert record is not None and record.phase == State.CONFIRMED.value, f"{what} at {point}: {record}"
        assert {name for name in _files(state) if not name.endswith(".new")} == files, f"{what} at {point}"
        shutil.rmtree(state)
    print(f"{what}: {points} points, each survived")


@pytest.mark.parametrize(("number", "times"), [(errno.ENOSPC, 1), (errno.EIO, 1), (errno.ENOSPC, 7)])
def test_an_error_at_any_operation(
    beginning: Path, tmp_path: Path, bundles: list[ModelBundle], number: int, times: int
) -> None:
    """The update waits and converges by itself, in the same process."""

    def disturb(state: Path, point: int) -> None:
        try:
            disk = FaultyDisk(failing_at(point, number, times))
            _perform(state, disk, Source(*bundles), bundles[2])
        except OSError:  # at the very start, where the agent gives up and is started again
            _check(state, bundles[1])
            _perform(state, Disk(), Source(*bundles), bundles[2])
        # the last operations are of the garbage collection, which is tried again at the next start
        asyncio.run(_start_and_stop(Device(state, Disk(), Source(*bundles))))

    _each_point(beginning, tmp_path, bundles, disturb, f"{errno.errorcode[number]} x {times}")


@pytest.mark.parametrize("second", [None, 11])
def test_power_lost_at_any_operation(
    beginning: Path, tmp_path: Path, bundles: list[ModelBundle], second: int | None
) -> None:
    """All objects are abandoned and new ones made on the same directory; `second`: it is lost again after the start."""

    def disturb(state: Path, point: int) -> None:
        for at in (point, second):
            if at is not None:
                with contextlib.suppress(PowerLost):
                    _perform(state, FaultyDisk(power_lost_at(at)), Source(*bundles), bundles[2])
            _check(state, bundles[1], bundles[2])
        asyncio.run(Device(state, Disk(), Source(*bundles)).deploy(3, bundles[2]))
        asyncio.run(_start_and_stop(Device(state, Disk(), Source(*bundles))))

    _each_point(beginning, tmp_path, bundles, disturb, f"power lost, second time at {second}")


async def _start_and_stop(device: Device) -> None:
    running = asyncio.create_task(device.updater.run())
    await asyncio.sleep(0.01)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("number", FULL_OR_FAILING, ids=errno.errorcode.get)
def test_an_error_at_any_operation_of_a_rollback(
    beginning: Path, tmp_path: Path, bundles: list[ModelBundle], number: int
) -> None:
    """It is done or refused; slots, record and what is served agree, at the latest after the next start."""
    points = None
    point = -1
    while points is None or point < points:
        state = tmp_path / f"rollback-{point}"
        shutil.copytree(beginning, state)
        disk = FaultyDisk(NO_FAULT)
        device = Device(state, disk, Source(*bundles))
        start = len(disk.operations)
        disk._fault = failing_at(start + point, number) if point >= 0 else NO_FAULT
        done = asyncio.run(_roll_back(device))
        points = len(disk.operations) - start if points is None else points
        _check(state, bundles[0] if done else bundles[1])
        device = Device(state, Disk(), Source(*bundles))
        asyncio.run(_start_and_stop(device))
        report = device.updater.report()
        assert report is not None and report.phase == ("failed" if done else "confirmed")
        point += 1
    print(f"rollback with {errno.errorcode[number]}: {points} points")


async def _roll_back(device: Device) -> bool:
    await device.models.switch(device.updater.slots.current)
    try:
        await device.updater.roll_back("c1")
    except OSError:
        return device.updater.slots.last_rollback == "c1"
    assert device.models.serving == device.updater.slots.current
    return True


def test_power_lost_at_any_operation_of_a_repair(beginning: Path, tmp_path: Path, bundles: list[ModelBundle]) -> None:
    """A model that was damaged on disk is fetched again, wherever the power is lost meanwhile."""
    points = 1000
    point = -1
    while point < points:
        state = tmp_path / f"repair-{point}"
        shutil.copytree(beginning, state)
        model = state / "bundles" / bundles[1].reference.manifest_sha256 / "variants/fp32/model.onnx"
        for path in (model, state / "objects" / (digest := sha256_of_file(model))[:2] / digest):
            with path.open("r+b") as file:
                file.write(bytes(100))
        disk = FaultyDisk(power_lost_at(point) if point >= 0 else NO_FAULT)
        with contextlib.suppress(PowerLost):
            asyncio.run(_repair(Device(state, disk, Source(*bundles)), bundles[1]))
        if point < 0:
            points = len(disk.operations)
        device = Device(state, Disk(), Source(*bundles))
        asyncio.run(_repair(device, bundles[1]))
        _check(state, bundles[1])
        shutil.rmtree(state)
        point += 1
    print(f"repair: {points} points, each survived")


async def _repair(device: Device, bundle: ModelBundle) -> None:
    """What the supervisor asks for when workers keep failing, and the update that follows."""
    running = asyncio.create_task(device.updater.run())
    try:
        async with asyncio.timeout(20):
            while device.updater.slots.current != _installed(bundle) or broken_file(
                device.store.directory, _installed(bundle)
            ):
                current = device.updater.slots.current
                if current is not None and broken_file(device.store.directory, current):
                    await device.updater.unserviceable(current, Reason(code="worker-crashed", message="x"))
                if running.done():
                    await _ended(running)
                await asyncio.sleep(0.001)
            while (report := device.updater.report()) is None or report.phase != "confirmed":
                if running.done():
                    await _ended(running)
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, RuntimeError, PowerLost):
            await running


class Defective(Models):
    """Fails once in a way that nobody foresaw."""

    failed = False

    async def try_out(self, installed: Installed) -> None:
        if not self.failed:
            self.failed = True
            raise ZeroDivisionError("a defect")
        await super().try_out(installed)


def test_a_defect_in_a_step_does_not_end_the_agent(
    beginning: Path, bundles: list[ModelBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    device = Device(beginning, Disk(), Source(*bundles))
    journal = device.updater._journal
    real = journal.hinder

    def hear(hindrance: Reason | None) -> None:
        heard.extend([hindrance.code] if hindrance else [])
        real(hindrance)

    monkeypatch.setattr(journal, "hinder", hear)
    device.models = Defective(device.store)
    monkeypatch.setattr(device.updater, "_models", device.models)
    monkeypatch.setattr(device.updater._loop._steps, "_models", device.models)
    asyncio.run(device.deploy(3, bundles[2]))
    report = device.updater.report()
    assert report is not None and report.phase == "confirmed"
    assert heard == ["internal-error"]
