"""Real worker processes under a supervisor: they crash, hang, fail their trial, and something is served again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
from tests.fakes.processes import running
from tests.fakes.waiting import until

from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.inference import process, standby, supervisor
from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.inference.options import Plan, SessionOptions
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_protocol.deployment import Installed, Reason

UNUSABLE = b"no model at all"


class Bench:
    """A supervisor with bundles that need no store."""

    def __init__(
        self, directory: Path, trial_timeout_s: float = 30.0, run_timeout_s: float = 30.0, *, standby: bool = False
    ) -> None:
        self._directory = directory
        self._places: dict[Installed, Path] = {}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.given_up: list[tuple[Installed, Reason]] = []
        self.instead: Installed | None = None
        self.supervisor = Supervisor(
            self._places.__getitem__,
            [self.listener],
            1,
            trial_timeout_s,
            run_timeout_s,
            self._beat,
            lambda: None,
            standby=standby,
        )
        self._keeping: asyncio.Task[None] | None = None

    def _beat(self, _installed: Installed, _beat: Beat) -> None:
        pass

    def bundle(self, version: str, **options: object) -> Installed:
        made: ModelBundle = make_model_bundle(self._directory / version, version=version, **options)  # type: ignore[arg-type]
        installed = Installed(bundle=made.reference, variant="fp32")
        self._places[installed] = made.directory
        return installed

    def keep(self) -> None:
        self._keeping = asyncio.create_task(self.supervisor.keep(self._unserviceable))

    async def _unserviceable(self, installed: Installed, reason: Reason) -> Installed | None:
        self.given_up.append((installed, reason))
        return self.instead or installed

    async def served_version(self) -> str:
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        writer.write(b"GET /v2/models/linear HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["versions"][0])

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        await asyncio.wait_for(self.supervisor.close(), 20)
        self.listener.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()
    assert _workers() == []


def _workers() -> list[int]:
    """Return those of this process that live; other tests may have left it helpers of Python's own."""
    return [process.pid for process in running("autoglm_edge_agent.inference.worker")]


async def _until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    await until(condition, timeout_s, 0.02)


async def test_a_crashed_worker_is_started_again(bench: Bench) -> None:
    first = bench.bundle("1")
    await bench.supervisor.switch(first)
    bench.keep()
    (pid,) = _workers()
    os.kill(pid, signal.SIGKILL)
    assert await bench.served_version() == "1"  # the connection waited in the kernel's queue meanwhile
    assert pid not in _workers()


async def test_a_stopped_worker_is_found_and_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT_TIMEOUT_S", 3.0)
    await bench.supervisor.switch(bench.bundle("1"))
    bench.keep()
    (pid,) = _workers()
    os.kill(pid, signal.SIGSTOP)
    await _until(lambda: pid not in _workers(), 10)
    assert await bench.served_version() == "1"


@pytest.mark.slow
async def test_a_held_up_agent_does_not_take_its_worker_for_hung(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT_TIMEOUT_S", 2.2)
    await bench.supervisor.switch(bench.bundle("1"))
    bench.keep()
    (pid,) = _workers()
    await asyncio.sleep(1.2)
    time.sleep(3.0)  # the event loop itself stands still
    await asyncio.sleep(0.5)
    assert _workers() == [pid]
    assert bench.supervisor.serving is not None


async def test_a_crash_loop_falls_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 0.01)
    good, bad = bench.bundle("1"), bench.bundle("2", model_bytes=UNUSABLE)
    bench.instead = good
    bench.keep()
    await bench.supervisor.switch(bad)
    await _until(lambda: bench.supervisor.serving == good)
    assert [(installed, reason.code) for installed, reason in bench.given_up] == [(bad, "model-unusable")]
    assert await bench.served_version() == "1"


class Measured:
    """Ways to run that were measured, the best one first. Is what the supervisor asks of a `Prober`."""

    def __init__(self, *plans: Plan) -> None:
        self._plans = plans

    def plans(self, _installed: Installed) -> tuple[Plan, ...]:
        return self._plans

    async def measure(self, _installed: Installed) -> None:
        """All of them were."""


async def test_a_trial_that_fails_in_the_best_way_goes_on_with_the_next(bench: Bench) -> None:
    gone, whole = Plan(runtime="a-runtime-that-is-gone"), Plan(runtime="onnxruntime")
    first, second = bench.bundle("1"), bench.bundle("2")
    bench.supervisor.prober = Measured(whole)  # type: ignore[assignment]
    await bench.supervisor.switch(first)
    bench.supervisor.prober = Measured(gone, whole)  # type: ignore[assignment]
    await bench.supervisor.try_out(second)
    assert bench.supervisor.tried(second)
    await bench.supervisor.switch(second)
    assert await bench.served_version() == "2"
    bench.supervisor.prober = Measured(gone, gone)  # type: ignore[assignment]
    with pytest.raises(Refusal, match="is unknown here"):
        await bench.supervisor.try_out(first)
    assert not bench.supervisor.tried(first)


async def test_a_way_to_run_that_keeps_failing_is_given_up_for_the_next_best(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 0.01)
    bench.supervisor.prober = Measured(  # type: ignore[assignment]
        Plan(runtime="a-runtime-that-is-gone"), Plan(runtime="onnxruntime")
    )
    bench.keep()
    installed = bench.bundle("1")
    await bench.supervisor.switch(installed)
    await _until(lambda: bench.supervisor.serving == installed)
    assert await bench.served_version() == "1"
    assert bench.given_up == [], "the bundle is not at fault"
    # Measured anew, fewer ways can be used.
    bench.supervisor.prober = Measured(Plan(runtime="onnxruntime"))  # type: ignore[assignment]
    await bench.supervisor.restart()
    assert await bench.served_version() == "1"


async def test_who_stands_in_runs_the_model_in_no_way_that_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(standby, "PAUSE_S", 0.0)
    bench = Bench(tmp_path, standby=True)
    bench.supervisor.prober = Measured(  # type: ignore[assignment]
        *(Plan(runtime="onnxruntime", options=SessionOptions(threads=threads)) for threads in (1, 2))
    )
    installed = bench.bundle("1")
    await bench.supervisor.switch(installed)
    bench.keep()
    dead: set[int] = set()

    def serving() -> int | None:
        """The worker that serves while another one stands in."""
        workers = set(_workers()) - dead
        workers.discard(bench.supervisor.standby.pid or 0)
        ready = bench.supervisor.standby.pid is not None and bench.supervisor.serving == installed
        return workers.pop() if ready and len(workers) == 1 else None

    for threads in (1, 1, 1, 2):
        await _until(lambda: serving() is not None)
        for pid in (serving(), bench.supervisor.standby.pid):
            assert pid is not None
            order = json.loads(psutil.Process(pid).cmdline()[-1])
            assert order["plan"]["options"]["threads"] == threads
        worker = serving()
        assert worker is not None
        dead.add(worker)
        os.kill(worker, signal.SIGKILL)
    assert bench.given_up == [], "the bundle is not at fault"
    await bench.close()


def _serves_alone(bench: Bench, installed: Installed) -> bool:
    return bench.supervisor.serving == installed and len(_workers()) == 1


def _gone(pid: int) -> bool:
    return pid not in _workers()


async def test_failures_of_one_bundle_are_not_held_against_the_next(bench: Bench) -> None:
    first, second = bench.bundle("1"), bench.bundle("2")
    bench.keep()
    for installed in (first, second):
        await bench.supervisor.switch(installed)
        for _ in range(2):
            await _until(partial(_serves_alone, bench, installed))
            (pid,) = _workers()
            os.kill(pid, signal.SIGKILL)
            await _until(partial(_gone, pid))
    await _until(lambda: bench.supervisor.serving == second)
    assert bench.given_up == []


async def test_a_bundle_that_disagrees_is_refused_and_the_old_one_serves(bench: Bench) -> None:
    good = bench.bundle("1")
    await bench.supervisor.switch(good)
    for version, options, code in (
        ("2", {"damage": True}, "golden-disagreement"),
        ("3", {"model_bytes": UNUSABLE}, "model-unusable"),
        ("4", {"golden_bytes": b"none"}, "bad-bundle"),
    ):
        with pytest.raises(Refusal) as caught:
            await bench.supervisor.try_out(bench.bundle(version, **options))
        assert caught.value.reason.code == code
        assert await bench.served_version() == "1"
    assert len(_workers()) == 1


async def test_a_trial_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trial_timeout_s=0.05)
    with pytest.raises(Refusal) as caught:
        await bench.supervisor.try_out(bench.bundle("1"))
    assert caught.value.reason.code == "worker-timeout"
    await _until(lambda: _workers() == [])
    await bench.close()


async def test_a_worker_that_cannot_be_started_is_a_hindrance(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.bundle("1")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Hindrance) as caught:
        await bench.supervisor.try_out(first)
    assert caught.value.reason.code == "worker-not-started"
    with pytest.raises(Refusal, match="no bundle is installed"):
        await bench.supervisor.restart()


async def test_a_trial_takes_over(bench: Bench) -> None:
    first, second = bench.bundle("1"), bench.bundle("2")
    await bench.supervisor.switch(first)
    bench.keep()
    await bench.supervisor.try_out(second)
    assert bench.supervisor.tried(second) and await bench.served_version() == "1"
    await bench.supervisor.switch(second)
    assert bench.supervisor.serving == second and await bench.served_version() == "2"
    await _until(lambda: len(_workers()) == 1)
    await bench.supervisor.switch(None)
    await _until(lambda: _workers() == [])


async def test_a_trial_worker_that_died_before_the_switch_is_replaced(bench: Bench) -> None:
    first, second = bench.bundle("1"), bench.bundle("2")
    await bench.supervisor.switch(first)
    bench.keep()
    before = set(_workers())
    await bench.supervisor.try_out(second)
    (trial,) = set(_workers()) - before
    os.kill(trial, signal.SIGKILL)
    await bench.supervisor.switch(second)
    assert await bench.served_version() == "2"
    await _until(lambda: len(_workers()) == 1)


@pytest.mark.parametrize(
    "moment_s", [0.02, 0.3, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.0, 0.1, 0.2, 0.4, 0.5))]
)
async def test_a_cancelled_switch_leaves_no_worker_without_an_owner(bench: Bench, moment_s: float) -> None:
    first, second = bench.bundle("1"), bench.bundle("2")
    await bench.supervisor.switch(first)
    switching = asyncio.create_task(bench.supervisor.switch(second))
    await asyncio.sleep(moment_s)
    switching.cancel()
    await asyncio.wait({switching})
    # The fixture closes the supervisor and looks for processes that are left.


async def test_nobody_stands_by_where_nothing_is_to_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "PAUSE_S", 0.01)
    waiting = bench.supervisor.standby
    waiting.wanted = True
    await bench.supervisor.switch(bench.bundle("1"))
    bench.keep()
    await _until(lambda: waiting.pid is not None)
    await bench.supervisor.switch(None)
    await _until(lambda: waiting.pid is None)
    await _until(lambda: _workers() == [])


async def test_many_switches_at_once_end_with_the_last(bench: Bench) -> None:
    bundles = [bench.bundle(str(number)) for number in range(1, 4)]
    bench.keep()
    moves = []
    for number in range(9):
        moves.append(asyncio.create_task(bench.supervisor.switch(bundles[number % 3])))
        await asyncio.sleep(0.05 * (number % 3))
    await asyncio.wait_for(asyncio.gather(*moves, bench.supervisor.restart()), 30)
    await _until(lambda: bench.supervisor.serving == bundles[2] and len(_workers()) == 1)
    assert await bench.served_version() == "3"


async def test_an_inference_that_takes_too_long_ends_the_worker(tmp_path: Path) -> None:
    bench = Bench(tmp_path, run_timeout_s=0.5)
    # 96 x 96 products, 4000 times over, for 20,000 rows: several seconds
    await bench.supervisor.switch(bench.bundle("1", width=96, repeat=400))
    bench.keep()
    (pid,) = _workers()
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [20_000, 96], "datatype": "FP32", "data": [0.0] * (20_000 * 96)}]}
    ).encode()
    _, writer = await asyncio.open_connection(*bench.listener.getsockname())
    writer.write(b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await _until(lambda: pid not in _workers(), 15)
    assert await bench.served_version() == "1"
    writer.close()
    await bench.close()
