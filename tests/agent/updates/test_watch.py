"""The watch over a new model, from what its worker tells to the model of before: each limit, kept to and not kept to.

Store, journal, steps and watch are the agent's own. What a worker would tell is said here, as are the board's degrees.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
from tests.fakes.waiting import until
from tests.faults.devices import Device, Source, installed, start_and_stop

from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.updates import watch
from autoglm_edge_agent.updates.probation import BUFFER_BYTES, MIN_RUNS
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.deployment import DeploymentReport
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.histogram import HistogramRecorder
from autoglm_edge_protocol.manifest import MANIFEST_PATH
from autoglm_edge_protocol.probation import ProbationTerms

MIB = 2**20
NEEDS_BYTES = 40 * MIB
USUAL_US, USUAL_C = 1000.0, 50.0
TERMS = ProbationTerms(
    duration_s=0.3,
    inferences=MIN_RUNS,
    patience_s=60.0,
    max_latency_ratio=2.0,
    max_memory_ratio=2.0,
    max_temperature_c=85,
)


@dataclass(frozen=True)
class Manner:
    """How a model does on this board."""

    run_us: float = USUAL_US
    memory_bytes: int = NEEDS_BYTES
    temperature_c: float = USUAL_C

    def beat(self) -> Beat:
        recorder = HistogramRecorder()
        for _ in range(5):
            recorder.record(self.run_us)
        return Beat(requests=5, run=recorder.take(), rss_bytes=self.memory_bytes)


class Board:
    """A device that serves `old`, and does in the manner of whatever bundle serves."""

    def __init__(self, state: Path, old: ModelBundle, new: ModelBundle, manner: Manner) -> None:
        self._manners = {old.reference: Manner(), new.reference: manner}
        self.device = Device(state, Disk(), Source(old, new), read_temperature=lambda: self._manner().temperature_c)

    def _manner(self) -> Manner:
        serving = self.device.models.serving
        return self._manners[serving.bundle] if serving else Manner()

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Let whatever serves be asked all the while."""
        asking = asyncio.create_task(self._ask())
        try:
            yield
        finally:
            asking.cancel()

    async def _ask(self) -> None:
        while True:
            if serving := self.device.models.serving:
                self.device.updater.observation.beat(serving, self._manner().beat(), time.monotonic())
            await asyncio.sleep(0.002)

    async def known(self, bundle: ModelBundle) -> None:
        """Wait until it is known how the serving model does."""
        observation = self.device.updater.observation
        await until(lambda: observation.baseline(installed(bundle), None).runs >= MIN_RUNS, 10, 0.002)

    def report(self) -> DeploymentReport:
        report = self.device.updater.report()
        assert report is not None
        return report


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.01)


def _bundles(directory: Path, slower: float) -> tuple[ModelBundle, ModelBundle]:
    old, new = (
        make_model_bundle(directory / version, version=version, seed=int(version), memory_bytes=NEEDS_BYTES)
        for version in ("1", "2")
    )
    path = new.directory / MANIFEST_PATH
    manifest = json.loads(path.read_text())
    for variant in manifest["variants"]:
        variant["latency"]["median_us"] *= slower
    path.write_text(json.dumps(manifest))
    assert read_manifest(new.directory).variants[0].latency.median_us == slower * 10
    return old, new


async def _watched(directory: Path, manner: Manner, slower: float = 1.0) -> tuple[Board, ModelBundle, ModelBundle]:
    old, new = _bundles(directory, slower)
    board = Board(directory / "state", old, new, manner)
    async with board.asked():
        await board.device.deploy(1, old)
        await board.known(old)
        await board.device.deploy(2, new, TERMS)
    return board, old, new


KEPT: list[tuple[str, Manner, float]] = [
    ("latency", Manner(run_us=1.9 * USUAL_US), 1.0),
    ("latency that the manifests lead to expect", Manner(run_us=5.8 * USUAL_US), 3.0),
    ("memory", Manner(memory_bytes=2 * NEEDS_BYTES + BUFFER_BYTES), 1.0),
    ("temperature", Manner(temperature_c=85.0), 1.0),
]
BROKEN: list[tuple[str, Manner, float, str, str]] = [
    ("latency", Manner(run_us=2.1 * USUAL_US), 1.0, "probation-latency", "1.00 times"),
    ("latency beyond what is expected", Manner(run_us=6.3 * USUAL_US), 3.0, "probation-latency", "3.00 times"),
    ("memory", Manner(memory_bytes=2 * NEEDS_BYTES + BUFFER_BYTES + MIB), 1.0, "probation-memory", "145 MiB"),
    ("temperature", Manner(temperature_c=85.5), 1.0, "probation-temperature", "85.5 degrees C, at most 85.0"),
]


@pytest.mark.parametrize(("manner", "slower"), [row[1:] for row in KEPT], ids=[row[0] for row in KEPT])
async def test_what_keeps_to_its_limits_is_confirmed(tmp_path: Path, manner: Manner, slower: float) -> None:
    board, _, new = await _watched(tmp_path, manner, slower)
    report = board.report()
    assert (report.phase, report.reason) == ("confirmed", None)
    assert board.device.models.serving == board.device.updater.slots.current == installed(new)


@pytest.mark.parametrize(
    ("manner", "slower", "code", "text"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
async def test_what_breaks_a_limit_is_rolled_back_and_it_is_said_why(
    tmp_path: Path, manner: Manner, slower: float, code: str, text: str
) -> None:
    board, old, new = await _watched(tmp_path, manner, slower)
    report = board.report()
    assert report.phase == "failed" and report.reason is not None
    assert report.reason.code == code and text in report.reason.message, report.reason
    assert report.probation is not None and report.probation.requests > 0
    assert board.device.models.serving == board.device.updater.slots.current == installed(old)
    # neither a restart nor time tries it again
    again = Device(tmp_path / "state", Disk(), Source(old, new))
    await start_and_stop(again)
    assert again.updater.slots.current == installed(old)
    kept = again.updater.report()
    assert kept is not None and (kept.phase, kept.reason) == ("failed", report.reason)


async def test_a_moment_of_heat_is_borne(tmp_path: Path) -> None:
    """Of the last three readings all must be too high."""
    old, new = _bundles(tmp_path, 1.0)
    degrees: list[float] = []
    device = Device(
        tmp_path / "state",
        Disk(),
        Source(old, new),
        read_temperature=lambda: degrees.pop(0) if degrees else USUAL_C,
    )
    await device.deploy(1, old)
    degrees += [USUAL_C, 90.0, 90.0]  # before the switch, and two on probation
    await device.deploy(2, new, TERMS.model_copy(update={"inferences": 0}))
    report = device.updater.report()
    assert report is not None and report.phase == "confirmed" and degrees == []
