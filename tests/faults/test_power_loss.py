"""Power lost after every operation, with what POSIX lets be lost: something serves, and the next run converges."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.fakes.model_bundles import ModelBundle
from tests.faults import points
from tests.faults.devices import files
from tests.faults.messages import FOLDER, MESSAGES, MessageScenario
from tests.faults.power import LOSSES, Loss, Recorder, after_power_loss
from tests.faults.scenarios import OFFENCE, REFUSAL, REPAIR, ROLLBACK, UPDATE, Scenario, damage

from autoglm_edge_protocol.durable import Disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALL, SOME = LOSSES[1], LOSSES[-1]
CASES = [
    *((UPDATE, loss) for loss in LOSSES),
    *((OFFENCE, loss) for loss in (ALL, SOME)),
    *((REFUSAL, loss) for loss in (ALL, SOME)),
    *((REPAIR, loss) for loss in (ALL, SOME)),
    *((ROLLBACK, loss) for loss in LOSSES),
    *((MESSAGES, loss) for loss in LOSSES),
    *((FOLDER, loss) for loss in LOSSES),
]


@pytest.mark.parametrize(("scenario", "loss"), CASES, ids=lambda value: value.name)
def test_power_lost_after_any_operation(
    scenario: Scenario | MessageScenario, loss: Loss, quick: None, memory_path: Path, bundles: list[ModelBundle]
) -> None:
    beginning = scenario.prepare(memory_path / "beginning", bundles)
    if scenario.damaged:
        damage(beginning, bundles[1])
    run = memory_path / "run"
    shutil.copytree(beginning, run)
    recorder = Recorder(run)
    scenario.run(run, recorder, bundles)
    scenario.finish(run, bundles)
    expected = files(run)
    for point in range(len(recorder.trace) + 1):
        state = memory_path / str(point)
        after_power_loss(beginning, recorder.trace[:point], loss, point, state)
        scenario.check_between(state, bundles)
        scenario.run(state, Disk(), bundles)
        points.injected(scenario.name, f"power loss, {loss.name}", point)
        scenario.check_end(state, bundles)
        scenario.finish(state, bundles)
        assert files(state) == expected, point
        shutil.rmtree(state)
    print(f"{scenario.name}, {loss.name}: {len(recorder.trace) + 1} points, each survived")


def test_what_was_not_synced_can_be_lost_and_what_was_cannot(tmp_path: Path) -> None:
    beginning, run = tmp_path / "beginning", tmp_path / "run"
    beginning.mkdir()
    (beginning / "old").write_bytes(b"old")
    shutil.copytree(beginning, run)
    disk = Recorder(run)
    disk.commit(run / "committed", b"whole")
    with disk.open_write(run / "written") as file:
        disk.write_at(file, 0, b"abc")
        disk.sync(file)
        disk.write_at(file, 3, b"def")
    disk.unlink(run / "old")
    found = {}
    for loss in LOSSES[:4]:
        after_power_loss(beginning, disk.trace, loss, 0, tmp_path / loss.name)
        found[loss.name] = {path.name: path.read_bytes() for path in (tmp_path / loss.name).iterdir()}
    assert found == {
        "nothing lost": {"committed": b"whole", "written": b"abcdef"},
        "all lost that was not synced": {"committed": b"whole", "old": b"old"},
        "names kept, bytes lost": {"committed": b"whole", "written": b"abc"},
        "names lost, bytes kept": {"committed": b"whole", "old": b"old"},
    }
