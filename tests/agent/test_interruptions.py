"""What comes at the wrong moment: orders, signals, kills. The old or new model serves, and the update converges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.model_bundles import MODEL_PATH, ModelBundle
from tests.fakes.processes import is_alive
from tests.fakes.sites import INPUT, Site

from autoglm_edge_protocol.commands import Outcome
from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.histogram import merge
from autoglm_edge_protocol.manifest import MANIFEST_PATH

pytestmark = pytest.mark.one_broker

WIDE = 8192  # a model of 328 KB, 6 blocks
VERY_WIDE = 80_000  # 3.2 MB, 56 blocks
PHASES = ("resolving", "fetching", "installing", "trying", "activating")


def _serves_one_of(agent: AgentProcess, *bundles: ModelBundle) -> str:
    widths = {bundle.reference.version: len(bundle.weights) for bundle in bundles}
    for bundle in bundles:
        x = np.zeros((1, len(bundle.weights)), np.float32)
        try:
            version, y = agent.infer("linear", x)
        except OSError:
            continue
        assert version in widths
        np.testing.assert_allclose(y[0], bundle.bias, rtol=1e-4, atol=1e-5)
        return version
    raise AssertionError("nothing serves")


def _moments(few: list[float], more: list[float]) -> list[Any]:
    return [*few, *(pytest.param(moment_s, marks=pytest.mark.slow) for moment_s in more)]


@pytest.mark.parametrize("moment_s", _moments([0.05, 0.2], [0.0, 0.1, 0.15, 0.25, 0.3, 0.5]))
def test_a_newer_generation_takes_over_in_mid_download(site: Site, moment_s: float) -> None:
    agent = site.agent()
    first = site.bundle("1")
    large, last = site.bundle("2", seed=2, width=VERY_WIDE), site.bundle("3", seed=3)
    site.confirm(first)
    site.fleet.block_pause_s = 0.002
    superseded = site.deploy(large)
    site.fleet.wait_phase(superseded, "resolving", "fetching")
    time.sleep(moment_s)
    started = time.monotonic()
    site.confirm(last, timeout_s=20)
    assert time.monotonic() - started < 10
    site.assert_serves(agent, last)
    wait_until(lambda: not list((agent.state / "partial").iterdir()), 5, "the superseded download was left on disk")


def test_many_generations_at_once_end_with_the_last(site: Site) -> None:
    agent = site.agent()
    bundles = [site.bundle(str(number), seed=number) for number in range(1, 9)]
    references = [site.fleet.publish(bundle) for bundle in bundles]
    for number in range(25):
        site.fleet.deploy(references[number % 7])
        time.sleep(0.03 * (number % 4))
    site.fleet.wait_phase(site.fleet.deploy(references[-1]), "confirmed", timeout_s=30)
    site.assert_serves(agent, bundles[-1])
    wait_until(lambda: len(agent.worker_pids()) == 1, 20, lambda: f"workers are left over: {agent.worker_pids()}")
    assert agent.stop() == 0


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_each_phase_the_update_still_converges(site: Site, phase: str) -> None:
    agent = site.agent()
    old, new = site.bundle("1"), site.bundle("2", seed=2, width=WIDE)
    site.confirm(old)
    site.fleet.block_pause_s = 0.03
    generation = site.deploy(new)
    _wait_for_record(agent, generation, phase)
    agent.kill()
    agent.start()
    agent.wait_serving()
    assert _serves_one_of(agent, old, new) in ("1", "2")
    report = site.fleet.wait_phase(generation, "confirmed", timeout_s=40)
    assert _serves_one_of(agent, new) == "2"
    assert report.deployment is not None
    assert report.deployment.fetched_bytes + report.deployment.present_bytes == report.deployment.total_bytes
    assert report.previous is not None and report.previous.bundle == old.reference


def _wait_for_record(agent: AgentProcess, generation: int, phase: str) -> None:
    """Wait until the persisted record is in this phase, or beyond (some phases take less than a millisecond)."""
    order = (*PHASES, "confirmed")
    path = agent.state / "update.json"
    wanted = {f'"state":"{state}"' for state in order[order.index(phase) :]}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        text = path.read_text() if path.exists() else ""
        if f'"generation":{generation},' in text and any(state in text for state in wanted):
            return
    raise AssertionError(f"never {phase}")


def test_progress_is_never_more_than_the_whole_and_all_of_it_in_the_end(site: Site) -> None:
    agent = site.agent()
    site.fleet.block_pause_s = 0.02
    site.fleet.spoil = lambda _s, offset, data: [(offset, data[::-1] if site.fleet.sent_bytes % 7 == 3 else data)]
    new = site.bundle("2", seed=2, width=WIDE)
    generation = site.deploy(new)
    _wait_for_record(agent, generation, "fetching")
    time.sleep(0.2)
    agent.kill()
    agent.start()
    report = site.fleet.wait_phase(generation, "confirmed").deployment
    assert report is not None
    assert 0 < report.total_bytes == report.fetched_bytes + report.present_bytes
    seen = [r.deployment for r in site.fleet.history if r.deployment is not None and r.deployment.total_bytes]
    assert all(d.fetched_bytes + d.present_bytes <= d.total_bytes for d in seen)
    before = (report.fetched_bytes, report.present_bytes)
    session = site.fleet.reports["dev-1"].session
    agent.kill()
    agent.start()
    wait_until(lambda: site.fleet.reports["dev-1"].session > session, 20, "no report after the restart")
    report = site.fleet.reports["dev-1"].deployment
    assert report is not None and (report.fetched_bytes, report.present_bytes) == before


@pytest.mark.parametrize("phase", ["fetching", "trying"])
def test_sigterm_during_an_update_ends_quickly(site: Site, phase: str) -> None:
    agent = site.agent()
    old, new = site.bundle("1"), site.bundle("2", seed=2, width=VERY_WIDE)
    site.confirm(old)
    site.fleet.block_pause_s = 0.02 if phase == "fetching" else 0.0
    generation = site.deploy(new)
    _wait_for_record(agent, generation, phase)
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 5
    assert "Traceback" not in agent.log_text()
    site.fleet.block_pause_s = 0.0
    agent.start()
    site.fleet.wait_phase(generation, "confirmed")


@pytest.mark.slow
def test_sigterm_right_after_the_start_ends_quickly(site: Site) -> None:
    agent = site.agent()
    site.confirm(site.bundle("1"))
    for pause_s in (0.4, 0.6, 0.8):
        agent.kill()
        agent.start()
        time.sleep(pause_s)
        started = time.monotonic()
        assert agent.stop() in (0, -signal.SIGTERM)  # the latter: before it had begun
        assert time.monotonic() - started < 5


def test_a_second_agent_on_the_same_state_is_one_line(site: Site, tmp_path: Path) -> None:
    agent = site.agent()
    site.confirm(site.bundle("1"))
    other = AgentProcess(tmp_path / "other", site.broker_url, "dev-2", state=agent.state)
    try:
        assert other.start().process.wait(20) == 1
        lines = other.log_text().splitlines()
        assert lines == [f"autoglm-edge-agent: another agent is running on {agent.state}"]
    finally:
        other.close()
    agent.infer("linear", INPUT)


# workers ----


def test_no_request_is_lost_while_models_are_switched(site: Site) -> None:
    agent = site.agent()
    bundles = [site.bundle(str(number), seed=number) for number in range(1, 5)]
    site.confirm(bundles[0])
    stop, failures, versions = threading.Event(), [], []

    def ask() -> None:
        while not stop.is_set():
            try:
                versions.append(agent.infer("linear", INPUT)[0])
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for bundle in bundles[1:]:
        site.confirm(bundle)
    assert site.fleet.wait_answer(site.fleet.command("restart-worker")).outcome is Outcome.SUCCEEDED
    assert site.fleet.wait_answer(site.fleet.command("rollback")).outcome is Outcome.SUCCEEDED
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{len(versions)} requests, {len(failures)} failed")
    assert not failures
    assert set(versions) == {"1", "2", "3", "4"}
    assert agent.infer("linear", INPUT)[0] == "3"
    _check_telemetry(site, agent, len(versions) + 1)


def _check_telemetry(site: Site, agent: AgentProcess, requests: int) -> None:
    assert agent.stop() == 0  # which sends what is left

    def windows() -> list[Any]:
        return [window for batch in site.fleet.telemetry for window in batch.inference]

    wait_until(lambda: sum(w.requests for w in windows()) >= requests, 10, "requests are missing in the telemetry")
    assert sum(window.requests for window in windows()) == requests
    together = merge(window.latency for window in windows())
    assert together.count == requests
    assert {window.bundle for window in windows()} == {f"linear@{number}" for number in range(1, 5)}
    samples = [sample for batch in site.fleet.telemetry for sample in batch.samples]
    assert samples and all(sample.memory_total_bytes for sample in samples)
    numbers = {(batch.boot_id, batch.sequence) for batch in site.fleet.telemetry}
    assert len(numbers) == max(number for _, number in numbers) + 1


def test_a_killed_worker_comes_back_by_itself(site: Site) -> None:
    agent = site.agent()
    bundle = site.bundle("1")
    site.confirm(bundle)
    for _ in range(2):
        (pid,) = agent.worker_pids()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: agent.worker_pids() not in ([], [pid]), 20, "no new worker")
        agent.wait_serving()
        site.assert_serves(agent, bundle)
    wait_until(lambda: site.fleet.reports["dev-1"].serving, 10, "the device does not report that it serves")


def test_workers_die_with_the_agent_and_leave_the_port(site: Site) -> None:
    agent = site.agent()
    site.confirm(site.bundle("1"))
    (pid,) = agent.worker_pids()
    agent.kill()
    wait_until(lambda: not is_alive(pid), 5, "an orphan lives")
    agent.start()
    agent.wait_serving(10)


def _overwritten(model: Path, _state: Path) -> None:
    with model.open("r+b") as file:
        file.write(bytes(64))


def _unreadable(model: Path, state: Path) -> None:
    """Let every name of a file lead to one that is there and cannot be read, as where a card has lost a block."""
    digest = sha256_of_file(model)
    for name in (model, state / "objects" / digest[:2] / digest):
        name.unlink()
        name.symlink_to("/proc/self/mem")  # of which nothing is mapped at its beginning: EIO


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (MODEL_PATH, _overwritten),
        pytest.param(MODEL_PATH, _unreadable, marks=pytest.mark.slow),
        (MANIFEST_PATH, _unreadable),
    ],
)
def test_a_model_damaged_on_disk_is_fetched_again(site: Site, name: str, damage: Callable[[Path, Path], None]) -> None:
    agent = site.agent()
    bundle = site.bundle("1")
    report = site.confirm(bundle)
    damage(agent.state / "bundles" / bundle.reference.manifest_sha256 / name, agent.state)
    sequence = report.sequence
    os.kill(agent.worker_pids()[0], signal.SIGKILL)
    wait_until(
        lambda: (
            (new := site.fleet.reports["dev-1"]).sequence > sequence + 2
            and new.serving
            and new.deployment is not None
            and new.deployment.phase == "confirmed"
        ),
        40,
        "the device did not recover",
    )
    site.assert_serves(agent, bundle)


@pytest.mark.slow
def test_a_model_damaged_on_disk_lets_the_previous_one_serve_meanwhile(site: Site) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    site.confirm(second)
    site.fleet.block_pause_s = 1.0
    model = agent.state / "bundles" / second.reference.manifest_sha256 / "variants/fp32/model.onnx"
    with model.open("r+b") as file:
        file.write(bytes(64))
    os.kill(agent.worker_pids()[0], signal.SIGKILL)
    seen: set[str] = set()

    def recovered() -> bool:
        agent.wait_serving()
        seen.add(agent.infer("linear", INPUT)[0])
        return "2" in seen

    wait_until(recovered, 40, lambda: f"the second never came back, {seen} served")
    assert seen == {"1", "2"}


def test_an_update_uses_no_object_that_was_damaged_on_disk(site: Site) -> None:
    agent = site.agent()
    first = site.bundle("1")
    site.confirm(first)
    same = site.bundle("2")  # another manifest, the same model and golden set
    model = agent.state / "bundles" / first.reference.manifest_sha256 / "variants/fp32/model.onnx"
    data = model.read_bytes()
    with model.open("r+b") as file:
        file.write(data[:-400] + bytes(400))
    report = site.confirm(same, timeout_s=30)
    site.assert_serves(agent, same)
    assert report.deployment is not None and report.deployment.fetched_bytes > 1000


# presence ----


def test_presence_tells_of_every_session_in_order(site: Site) -> None:
    agent = site.agent()
    site.confirm(site.bundle("1"))
    agent.kill()
    wait_until(lambda: any(not p.online for p in site.fleet.presences), 10, "the broker published no will")
    agent.start()
    wait_until(lambda: site.fleet.presences[-1].online and len(site.fleet.presences) >= 3, 10, "not online again")
    assert agent.stop() == 0
    wait_until(lambda: not site.fleet.presences[-1].online, 10, "no good-bye")
    first, will, second, bye = [*dict.fromkeys((p.session, p.online) for p in site.fleet.presences)]
    assert (first[1], will[1], second[1], bye[1]) == (True, False, True, False)
    assert first[0] == will[0] < second[0] == bye[0]


@pytest.mark.slow
def test_thirty_activations_leak_neither_descriptors_nor_processes(site: Site) -> None:
    agent = site.agent()
    bundles = [site.bundle(str(number), seed=number) for number in (1, 2)]
    site.confirm(bundles[0])
    site.confirm(bundles[1])
    wait_until(lambda: len(agent.worker_pids()) == 1, 20, "the first worker lives on")
    before = _descriptors(agent)
    for number in range(30):
        site.confirm(bundles[number % 2])
    wait_until(lambda: len(psutil.Process(agent.process.pid).children()) == 1, 20, "workers are left over, or zombies")
    wait_until(
        lambda: _descriptors(agent) <= before, 5, lambda: f"{_descriptors(agent)} descriptors, there were {before}"
    )


def _descriptors(agent: AgentProcess) -> int:
    return len(list(Path(f"/proc/{agent.process.pid}/fd").iterdir()))


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("autoglm-edge-agent")), "run", "-c", str(tmp_path / "none.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "does not exist" in done.stderr
