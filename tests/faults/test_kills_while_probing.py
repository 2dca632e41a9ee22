"""kill -9 of the agent while a process measures a new model: the old one serves, and what was measured is kept."""

from __future__ import annotations

import contextlib
from functools import partial

import psutil
import pytest
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.processes import running
from tests.fakes.sites import INPUT, Site

from autoglm_edge_agent.inference.probed import Probed
from autoglm_edge_agent.storage.store import PROBES
from autoglm_edge_protocol.documents import parse

pytestmark = pytest.mark.slow

KILLS = 4
LATER_S = 0.15
"""The second half of the kills comes so much later in a candidate's turn."""


def _probe(agent: AgentProcess) -> int | None:
    probes = running("autoglm_edge_agent.inference.probe", agent.process.pid, recursive=True)
    return probes[0].pid if probes else None


def _is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def _measured(agent: AgentProcess, manifest_sha256: str) -> list[str]:
    path = agent.state / PROBES / f"{manifest_sha256}.json"
    if not path.exists():
        return []
    entries = parse(Probed, path.read_bytes()).entries
    return [found.plan.model_dump_json() for entry in entries for found in entry.measured]


@pytest.mark.one_broker
def test_the_old_model_serves_and_no_candidate_is_measured_twice(site: Site) -> None:
    agent = site.agent(probe="max_threads = 2\nseconds = 0.4")
    site.confirm(site.bundle("1"), timeout_s=120)
    new = site.bundle("2", seed=2)
    generation = site.deploy(new)
    known: list[str] = []
    for kill in range(KILLS):
        probe = wait_until(lambda: _probe(agent), 60, "nothing is measured")
        if kill >= KILLS // 2:
            with contextlib.suppress(psutil.TimeoutExpired):
                psutil.Process(probe).wait(LATER_S)
        agent.kill()
        wait_until(partial(_is_gone, probe), 10, "the probe outlives its agent")
        after = _measured(agent, new.reference.manifest_sha256)
        assert after[: len(known)] == known, "what was measured is lost"
        known = after
        agent.start()
        agent.wait_serving()
        assert agent.infer("linear", INPUT)[0] == "1"
    report = site.fleet.wait_phase(generation, "confirmed", timeout_s=120)
    assert agent.infer("linear", INPUT)[0] == "2"
    finished = _measured(agent, new.reference.manifest_sha256)
    assert finished[: len(known)] == known and len(set(finished)) == len(finished) > len(known)
    assert report.acceleration is not None
