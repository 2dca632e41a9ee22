"""A real agent, killed at every operation of the file system that a command causes: it acts once and answers once."""

from __future__ import annotations

import signal
import time

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.sites import Site
from tests.faults import points
from tests.faults.killed_agents import NEVER, counted, wrapper
from tests.faults.remains import left_over

from autoglm_edge_protocol.commands import Answer, Outcome
from autoglm_edge_protocol.durable import Disk


@pytest.mark.one_broker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_operation_of_a_rollback_by_command(site: Site) -> None:
    control = site.directory / "kill"
    agent = site.agent(wrapper=wrapper(control))
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    site.confirm(second)
    Disk().commit(control, str(NEVER).encode())
    assert not _killed(site, site.fleet.command("rollback").command_id)
    enumerated = counted(control)
    operation = 0
    while True:
        site.confirm(second)
        Disk().commit(control, str(operation).encode())
        command = site.fleet.command("rollback")
        if not _killed(site, command.command_id):
            break
        assert agent.process.returncode == -signal.SIGKILL
        points.injected("a rollback by command", "kill -9 of the agent", operation)
        agent.start()
        answer = site.fleet.wait_answer(command)
        assert answer.outcome is Outcome.SUCCEEDED, (operation, answer)
        agent.wait_serving()
        site.assert_serves(agent, first)
        site.fleet.wait_answer(site.fleet.command("ping"))  # whatever else was to come has come
        assert all(other == answer for other in _answers(site, command.command_id)), operation
        wait_until(lambda: not left_over(agent.state), 10, f"{operation}: something is left over")
        operation += 1
    print(f"{enumerated} operations, killed at {operation}")
    assert operation == enumerated > 20


def _answers(site: Site, command_id: str) -> list[Answer]:
    return [answer for answer in site.fleet.answers if answer.command_id == command_id]


def _killed(site: Site, command_id: str) -> bool:
    """Wait until the agent is killed, or until it has kept that the broker has the answer."""
    process = site.agents[0].process
    wait_until(lambda: process.poll() is not None or _answers(site, command_id), 30, "neither killed nor answered")
    # Kept within milliseconds after the broker has it; an agent that is still there a second later was not killed.
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    return process.poll() is not None
