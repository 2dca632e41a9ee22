"""The broker goes away and comes back: at the start, during a download, while a model serves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.brokers import Broker
from tests.fakes.sites import INPUT, Site

from autoglm_edge_protocol.commands import Outcome

pytestmark = pytest.mark.slow

WIDE = 80_000  # a model of 3.2 MB


def test_a_broker_that_restarts_during_a_download(site: Site, broker: Broker) -> None:
    agent = site.agent()
    old, new = site.bundle("1"), site.bundle("2", seed=2, width=WIDE)
    site.confirm(old)
    site.fleet.block_pause_s = 0.05
    generation = site.deploy(new)
    site.fleet.wait_phase(generation, "fetching")
    for _ in range(2):
        time.sleep(0.5)
        broker.kill()
        site.assert_serves(agent, old)
        time.sleep(0.5)
        broker.start()
    report = site.fleet.wait_phase(generation, "confirmed", timeout_s=90).deployment
    assert report is not None and report.fetched_bytes + report.present_bytes == report.total_bytes
    assert agent.infer("linear", np.zeros((1, WIDE), np.float32))[0] == "2"
    assert site.fleet.wait_answer(site.fleet.command("ping")).outcome is Outcome.SUCCEEDED


def test_what_happens_while_the_broker_is_away_is_reported_afterwards(site: Site, broker: Broker) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    site.confirm(second)
    before = site.fleet.reports["dev-1"]
    broker.kill()
    # Two damaged files: the device falls back to the first by itself, with nobody to tell.
    model = agent.state / "bundles" / second.reference.manifest_sha256 / "variants/fp32/model.onnx"
    with model.open("r+b") as file:
        file.write(bytes(64))

    os.kill(agent.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: agent.infer("linear", INPUT, 20)[0] == "1", 30, "no fall-back without a broker")
    broker.start()
    wait_until(
        lambda: (
            (report := site.fleet.reports["dev-1"]).session > before.session
            and report.current is not None
            and report.current.bundle == second.reference
            and report.serving
        ),
        60,
        "the device did not report, or did not fetch its model again",
    )
    site.assert_serves(agent, second)


def test_a_model_serves_before_there_is_a_broker(site: Site, broker: Broker) -> None:
    agent = site.agent()
    bundle = site.bundle("1")
    site.confirm(bundle)
    agent.kill()
    broker.kill()
    agent.start()
    agent.wait_serving(15)
    site.assert_serves(agent, bundle)
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 8
    agent.start()
    broker.start()
    wait_until(lambda: site.fleet.presences and site.fleet.presences[-1].online, 60, "the device never came back")


def test_an_agent_without_any_broker_says_so_and_stays(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent", "mqtt://127.0.0.1:1")
    try:
        agent.start()
        wait_until(lambda: "127.0.0.1:1" in agent.log_text(), 10, "nothing about the broker in the log")
        assert agent.process.poll() is None
        assert agent.stop() == 0
        assert "Traceback" not in agent.log_text()
    finally:
        agent.close()
