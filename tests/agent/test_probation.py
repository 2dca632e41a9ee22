"""Probation on a real agent: a model that was activated is watched, and the device goes back to the previous one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.sites import INPUT, Site

from autoglm_edge_protocol.commands import Outcome
from autoglm_edge_protocol.deployment import DeploymentReport, ReportedState
from autoglm_edge_protocol.probation import ProbationReport, ProbationTerms, ShadowTerms

pytestmark = pytest.mark.one_broker

LONG_S = 600.0
SHADOW = ShadowTerms(rate=1.0, max_disagreement=0.2, min_samples=5)


def _terms(**terms: object) -> ProbationTerms:
    given = {"duration_s": 1.0, "inferences": 0, "patience_s": LONG_S, **terms}
    return ProbationTerms.model_validate(given)


@contextmanager
def _asked(agent: AgentProcess, body: object = None) -> Iterator[list[str]]:
    """Ask the device all the while; gives the versions that answered."""
    stop, versions = threading.Event(), list[str]()
    dice = np.random.default_rng(5)

    def ask() -> None:
        while not stop.wait(0.02):
            if body is None:
                versions.append(agent.infer("linear", dice.standard_normal((4, 64), dtype=np.float32))[0])
            else:
                try:
                    agent.request("POST", "/v2/models/linear/infer", body)
                except OSError:
                    versions.append("error")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield versions
    finally:
        stop.set()
        thread.join()


def _on_probation(site: Site, generation: int) -> ReportedState:
    return site.fleet.wait_phase(generation, "probation")


def _seen(site: Site, generation: int) -> ProbationReport | None:
    deployment = site.fleet.reports["dev-1"].deployment
    assert deployment is not None and deployment.generation == generation, deployment
    return deployment.probation


def _back(site: Site, agent: AgentProcess, generation: int, code: str, old: ModelBundle) -> DeploymentReport:
    report = site.refused(generation)
    print(report.reason)
    assert report.reason is not None and report.reason.code == code
    site.assert_serves(agent, old)
    current = site.fleet.reports["dev-1"].current
    assert current is not None and current.bundle == old.reference
    return report


@pytest.fixture
def started(site: Site) -> tuple[Site, AgentProcess, ModelBundle]:
    """An agent that serves a confirmed bundle."""
    agent = site.agent(probation_s=LONG_S)
    old = site.bundle("1", seed=1)
    site.fleet.wait_phase(site.deploy(old, probation=_terms(duration_s=0)), "confirmed")
    return site, agent, old


Started = tuple[Site, AgentProcess, ModelBundle]


def test_a_model_that_differs_from_its_predecessor_on_live_inputs_is_rolled_back(started: Started) -> None:
    site, agent, old = started
    new = site.bundle("2", seed=2)
    with _asked(agent) as versions:
        generation = site.deploy(new, probation=_terms(shadow=SHADOW))
        report = _back(site, agent, generation, "probation-disagreement", old)
    assert report.probation is not None and report.probation.compared >= 5
    assert report.reason is not None and "differently from the previous model" in report.reason.message
    assert set(versions) == {"1", "2"}
    wait_until(lambda: len(agent.worker_pids()) == 1, 10, "the shadow is left over")
    # neither a restart nor time tries it again; a new generation does
    agent.kill()
    agent.start()
    agent.wait_serving()
    time.sleep(1)
    site.assert_serves(agent, old)
    again = site.deploy(new, probation=_terms(duration_s=0))
    site.fleet.wait_phase(again, "confirmed")
    site.assert_serves(agent, new)


def test_a_model_that_agrees_with_its_predecessor_is_confirmed(started: Started) -> None:
    site, agent, _ = started
    same = site.bundle("2", seed=1)
    with _asked(agent) as versions:
        generation = site.deploy(same, probation=_terms(shadow=SHADOW, inferences=20))
        report = site.fleet.wait_phase(generation, "confirmed").deployment
    assert report is not None and report.probation is not None
    assert report.probation.compared >= 5 and report.probation.differed == 0
    assert report.probation.requests >= 20 and report.probation.elapsed_s >= 1
    assert "error" not in versions
    site.assert_serves(agent, same)
    wait_until(lambda: len(agent.worker_pids()) == 1, 10, "the shadow is left over")


def test_a_model_that_answers_with_errors_is_rolled_back(started: Started) -> None:
    site, agent, old = started
    wider = site.bundle("2", seed=1, width=65)  # takes other inputs than the applications send
    body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}
    with _asked(agent, body):
        generation = site.deploy(wider, probation=_terms(duration_s=LONG_S))
        report = _back(site, agent, generation, "probation-error-rate", old)
    assert report.reason is not None and "requests (100.0%) were answered with an error" in report.reason.message


def test_a_model_whose_worker_crashes_is_rolled_back(started: Started) -> None:
    site, agent, old = started
    generation = site.deploy(site.bundle("2", seed=2), probation=_terms(duration_s=LONG_S, max_crashes=1))
    _on_probation(site, generation)
    for crash in range(2):
        wait_until(lambda: len(agent.worker_pids()) == 1, 20, "the worker did not come back")
        os.kill(agent.worker_pids()[0], signal.SIGKILL)
        if crash == 0:
            seen = wait_until(lambda: (s := _seen(site, generation)) and s.crashes == 1, 20, "a crash was not counted")
            assert seen
            agent.wait_serving()
    _back(site, agent, generation, "probation-crashes", old)


def test_killed_on_probation_it_goes_on_where_it_was(started: Started) -> None:
    site, agent, _ = started
    generation = site.deploy(site.bundle("2", seed=2), probation=_terms(duration_s=6.0))
    _on_probation(site, generation)
    os.kill(agent.worker_pids()[0], signal.SIGKILL)  # a crash is committed at once, and the time with it
    wait_until(lambda: (s := _seen(site, generation)) and s.crashes == 1, 20, "a crash was not counted")
    agent.kill()
    agent.start()
    report = site.fleet.wait_phase(generation, "confirmed").deployment
    assert report is not None and report.probation is not None and report.probation.crashes == 1
    assert agent.infer("linear", INPUT)[0] == "2"


@pytest.mark.slow
def test_killed_again_and_again_on_probation_the_bundle_is_given_up(started: Started) -> None:
    site, agent, old = started
    generation = site.deploy(site.bundle("2", seed=2), probation=_terms(duration_s=LONG_S))
    session = _on_probation(site, generation).session
    for _ in range(5):
        agent.kill()
        agent.start()
        wait_until(lambda before=session: site.fleet.reports["dev-1"].session > before, 30, "no report")
        session = site.fleet.reports["dev-1"].session
    report = _back(site, agent, generation, "probation-crashes", old)
    assert report.reason is not None and "went down 5 times" in report.reason.message


@pytest.mark.slow
def test_stopped_in_order_on_probation_nothing_is_held_against_the_bundle(started: Started) -> None:
    site, agent, _ = started
    generation = site.deploy(site.bundle("2", seed=2), probation=_terms(duration_s=8.0))
    session = _on_probation(site, generation).session
    for _ in range(6):
        assert agent.stop() == 0
        agent.start()
        wait_until(lambda before=session: site.fleet.reports["dev-1"].session > before, 30, "no report")
        session = site.fleet.reports["dev-1"].session
    site.fleet.wait_phase(generation, "confirmed")


def test_a_newer_generation_on_probation_keeps_the_last_known_good_one(started: Started) -> None:
    site, agent, old = started
    second, third = site.bundle("2", seed=2), site.bundle("3", seed=3)
    _on_probation(site, site.deploy(second, probation=_terms(duration_s=LONG_S)))
    report = _on_probation(site, site.deploy(third, probation=_terms(duration_s=LONG_S)))
    assert report.previous is not None and report.previous.bundle == old.reference  # not the unproven one
    answer = site.fleet.wait_answer(site.fleet.command("rollback"))
    assert answer.outcome is Outcome.SUCCEEDED and answer.result["bundle"] == "linear@1"
    assert site.refused(2 + 1).reason is not None
    site.assert_serves(agent, old)


def test_an_operator_takes_a_model_back_that_is_on_probation(started: Started) -> None:
    site, agent, old = started
    generation = site.deploy(site.bundle("2", seed=2), probation=_terms(duration_s=LONG_S))
    _on_probation(site, generation)
    site.fleet.wait_answer(site.fleet.command("rollback"))
    _back(site, agent, generation, "rolled-back", old)


def test_the_first_model_of_a_device_serves_on_though_it_fails(site: Site) -> None:
    agent = site.agent(probation_s=LONG_S)
    first = site.bundle("1")
    generation = site.deploy(first, probation=_terms(duration_s=LONG_S, max_crashes=0))
    _on_probation(site, generation)
    os.kill(agent.worker_pids()[0], signal.SIGKILL)
    report = site.refused(generation)
    assert report.reason is not None and report.reason.code == "probation-crashes"
    assert "no previous bundle" in report.reason.message
    agent.wait_serving()
    site.assert_serves(agent, first)


def test_the_owner_of_the_device_bounds_what_a_fleet_may_ask_for(site: Site) -> None:
    site.agent(probation_s=0.5)
    old, new = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(old)
    report = site.fleet.wait_phase(site.deploy(new, probation=_terms(duration_s=LONG_S)), "confirmed", timeout_s=30)
    assert report.deployment is not None and report.deployment.probation is not None
    assert 0.5 <= report.deployment.probation.elapsed_s < 10
