"""Commands to a real agent: each gets one final answer, whatever happens."""

from __future__ import annotations

import time

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.sites import Site

from autoglm_edge_protocol.commands import Answer, Outcome


def _answers(site: Site, command_id: str) -> list[Answer]:
    return [answer for answer in site.fleet.answers if answer.command_id == command_id]


def test_every_command_is_answered(site: Site) -> None:
    agent = site.agent()
    wait_until(lambda: "dev-1" in site.fleet.reports, 20, "the device never came")
    nothing_yet = site.fleet.wait_answer(site.fleet.command("rollback"))
    assert nothing_yet.outcome is Outcome.FAILED and nothing_yet.reason is not None
    assert nothing_yet.reason.code == "no-previous"
    nothing = site.fleet.wait_answer(site.fleet.command("restart-worker"))
    assert nothing.reason is not None and nothing.reason.code == "nothing-to-serve"
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    generation = site.deploy(second)
    site.fleet.wait_phase(generation, "confirmed")
    (worker,) = wait_until(lambda: len(agent.worker_pids()) == 1 and agent.worker_pids(), 20, "two workers")
    restarted = site.fleet.wait_answer(site.fleet.command("restart-worker"))
    assert restarted.outcome is Outcome.SUCCEEDED and restarted.result == {"bundle": "linear@2"}
    assert worker not in wait_until(lambda: len(agent.worker_pids()) == 1 and agent.worker_pids(), 20, "two workers")
    assert site.fleet.wait_answer(site.fleet.command("ping")).result["agent"]
    unknown = site.fleet.wait_answer(site.fleet.command("dance"))
    assert unknown.outcome is Outcome.UNKNOWN and unknown.reason is not None
    assert "ping, restart-worker, rollback" in unknown.reason.message
    late = site.fleet.wait_answer(site.fleet.command("rollback", expires_at=time.time() - 1))
    assert late.outcome is Outcome.EXPIRED
    site.assert_serves(agent, second)
    back = site.fleet.wait_answer(site.fleet.command("rollback"))
    assert back.outcome is Outcome.SUCCEEDED and back.result == {"bundle": "linear@1", "variant": "fp32"}
    site.assert_serves(agent, first)
    report = site.refused(generation)
    assert report.reason is not None and report.reason.code == "rolled-back"


def test_a_command_that_is_delivered_twice_acts_once(site: Site) -> None:
    agent = site.agent()
    bundles = [site.bundle(str(number), seed=number) for number in (1, 2)]
    for bundle in bundles:
        site.confirm(bundle)
    command = site.fleet.command("rollback")
    site.fleet.wait_answer(command)
    for _ in range(2):
        site.fleet.command("rollback", command_id=command.command_id)
    wait_until(lambda: len(_answers(site, command.command_id)) >= 2, 10, "no answer to the repetition")
    first, *others = _answers(site, command.command_id)
    assert all(other == first for other in others)
    site.assert_serves(agent, bundles[0])
    agent.kill()
    agent.start()
    agent.wait_serving()
    site.fleet.command("rollback", command_id=command.command_id)
    site.fleet.wait_answer(site.fleet.command("ping"))
    assert all(other == first for other in _answers(site, command.command_id))
    site.assert_serves(agent, bundles[0])


@pytest.mark.slow
def test_a_command_survives_a_kill_at_any_moment_after_it_was_sent(site: Site) -> None:
    agent = site.agent()
    bundles = [site.bundle(str(number), seed=number) for number in (1, 2)]
    for pause_s in (0.0, 0.01, 0.05):
        for bundle in bundles:
            site.confirm(bundle)
        command = site.fleet.command("rollback")
        time.sleep(pause_s)
        agent.kill()
        agent.start()
        answer = site.fleet.wait_answer(command)
        assert answer.outcome is Outcome.SUCCEEDED, answer
        site.fleet.wait_answer(site.fleet.command("ping"))  # whatever else was to come has come
        assert all(other == answer for other in _answers(site, command.command_id))
        agent.wait_serving()
        site.assert_serves(agent, bundles[0])
