from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.brokers import Broker
from tests.fakes.sites import INPUT, Site
from tests.systemd.managers import Manager

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.systemd.liveness import Pulse, late
from autoglm_edge_agent.systemd.notify import Notifier
from autoglm_edge_agent.systemd.watchdog import Watchdog


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, broker.url) as made:
        yield made


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as listening:
        yield listening


@pytest.mark.parametrize(
    ("due_s", "expected"),
    [
        ({}, ()),
        ({"worker": None, "updater": None}, ()),
        ({"worker": 10.0, "updater": None}, ()),  # at its very time it is not late yet
        ({"worker": 9.9, "updater": 10.1}, ("worker",)),
        ({"worker": 1.0, "updater": 2.0}, ("worker", "updater")),
    ],
)
def test_who_is_late(due_s: dict[str, float | None], expected: tuple[str, ...]) -> None:
    assert late(due_s, 10.0) == expected


def test_a_pulse_promises_until_it_rests() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    pulse.within(5)
    assert pulse.due_s == 105
    now[0] = 104
    pulse.within(5)
    assert pulse.due_s == 109
    pulse.rest()
    assert pulse.due_s is None


def test_nothing_is_fed_while_a_part_is_late(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    watchdog = Watchdog(Notifier(manager.address, 8.0), {"the updater": pulse}, lambda: "well", lambda: now[0])
    pulse.within(10)
    watchdog.look()
    wait_until(lambda: manager.feeds() == 1, 10, "it is not fed")
    now[0] = 11
    with caplog.at_level(logging.ERROR):
        watchdog.look()
        watchdog.look()
    assert [record.getMessage() for record in caplog.records] == [
        "no sign of life from the updater: the service manager is told nothing more"
    ]
    pulse.within(10)
    watchdog.look()
    # Messages come in their order: had the watchdog been fed while the part was late, this would be the third.
    wait_until(lambda: manager.feeds() >= 2, 10, "it is not fed again")
    assert manager.heard == ["STATUS=well", "WATCHDOG=1", "WATCHDOG=1"]


async def test_a_loop_that_is_frozen_feeds_nothing(manager: Manager) -> None:
    watchdog = Watchdog(Notifier(manager.address, 0.04), {}, lambda: "")
    task = asyncio.create_task(watchdog.run())
    try:
        while manager.feeds() < 3:
            await asyncio.sleep(0.005)
        time.sleep(0.05)  # what was sent is read
        before = manager.feeds()
        time.sleep(0.2)  # five times as long as the manager would wait
        assert manager.feeds() == before
        while manager.feeds() < before + 2:
            await asyncio.sleep(0.005)
    finally:
        await cancel(task)


@pytest.mark.one_broker
def test_an_agent_tells_its_manager(site: Site, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    agent = site.agent()
    wait_until(lambda: "READY=1" in manager.heard, 30, "the agent is never ready")
    assert manager.heard[0].startswith("EXTEND_TIMEOUT_USEC=")
    site.confirm(site.bundle("1"))
    wait_until(lambda: "STATUS=linear@1 (fp32) serves" in manager.heard, 30, "the status does not tell of the model")
    agent.infer("linear", INPUT)
    before = manager.feeds()
    wait_until(lambda: manager.feeds() > before + 2, 30, "the watchdog is not fed")

    agent.process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    stopped = manager.feeds()
    time.sleep(0.8)  # twice as long as the manager would wait
    assert manager.feeds() == stopped
    agent.process.send_signal(signal.SIGCONT)
    wait_until(lambda: manager.feeds() > stopped, 30, "the watchdog is not fed again")

    # What hangs tells where: the manager's signal makes it write its stacks.
    agent.process.send_signal(signal.SIGABRT)
    assert agent.process.wait(30) == -signal.SIGABRT
    assert "Current thread" in agent.log_text()


@pytest.mark.one_broker
def test_its_children_find_nothing_of_the_manager(
    site: Site, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    agent = site.agent()
    site.confirm(site.bundle("1"))
    (worker,) = agent.worker_pids()
    environment = Path(f"/proc/{worker}/environ").read_bytes()
    assert b"ORT_DISABLE_TELEMETRY=1" in environment
    assert b"NOTIFY_SOCKET" not in environment
    assert _oom_score(worker) == 500
    assert _oom_score(agent.process.pid) == _oom_score("self") < 500
    assert agent.stop() == 0
    wait_until(lambda: "STOPPING=1" in manager.heard, 10, "the agent does not say that it ends")


def _oom_score(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_whom_the_manager_means() -> None:
    def watched(**environment: str) -> float | None:
        return Notifier.from_environment({"NOTIFY_SOCKET": "/x", **environment}).watchdog_s

    assert watched(WATCHDOG_USEC="3000000") == 3.0
    assert watched(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid())) == 3.0
    assert watched(WATCHDOG_USEC="3000000", WATCHDOG_PID="1") is None
    assert watched(WATCHDOG_USEC="soon") is None
    assert watched() is None


def test_a_manager_that_is_gone_does_not_end_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Notifier("/nonexistent/notify").ready()
    assert "could not be told READY" in caplog.text
