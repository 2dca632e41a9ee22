"""Power cuts: every process of the path is killed at random moments during updates, and a model serves afterwards."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.digits import DigitsBundle, ask
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.brokers import Broker
from tests.fakes.fleet_processes import FleetProcess

from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_protocol.names import BundleId

pytestmark = pytest.mark.one_broker

KILLS = 24
LONGEST_PAUSE_S = 1.0
"""An update takes about a second: kills fall into all of its phases, and some after it."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_serves_after_every_kill(
    broker: Broker, fleet_side: FleetProcess, agent: AgentProcess, digits_bundles: list[DigitsBundle]
) -> None:
    fleet = fleet_side.fleet
    for bundle in digits_bundles:
        fleet.publish(bundle.path)
    wait_until(lambda: agent.device in fleet.device_names(), 30, "the device was never seen")
    known = {bundle.version: bundle for bundle in digits_bundles}
    _deploy_and_wait(fleet_side, agent, digits_bundles[0], 60)
    dice = random.Random(20)
    phases: dict[str, int] = {}
    issued: tuple[Deployment, ...] = ()
    for number in range(KILLS):
        wanted = digits_bundles[(number + 1) % len(digits_bundles)]
        issued = _deploy(fleet, agent, wanted)
        time.sleep(dice.uniform(0.0, LONGEST_PAUSE_S))
        phase = fleet.refresh(issued)[0].phase
        phases[phase] = phases.get(phase, 0) + 1
        agent.kill()
        if number % 6 == 2:
            fleet_side.kill()
            fleet_side.start()
        if number % 6 == 5:
            broker.kill()
            broker.restart()
        agent.start()
        agent.wait_serving(30)
        version, right = ask(agent, known)
        assert version in known
        assert right, f"{version} answers wrongly after kill {number}"
    print(f"kills: {KILLS}, phase known to the fleet at the kill: {phases}")
    final = digits_bundles[KILLS % len(digits_bundles)]
    ended = fleet.wait_for_deployments(issued, 60)[0]
    assert ended.phase == "confirmed", ended
    wait_until(lambda: ask(agent, known) == (final.version, True), 20, f"{final.version} never served")
    assert _leftovers(agent.state) == []


def _deploy(fleet: Fleet, agent: AgentProcess, bundle: DigitsBundle) -> tuple[Deployment, ...]:
    """Tell the device to run a bundle, which may be an older one than it has confirmed."""
    wanted = BundleId.parse(f"digits@{bundle.version}")
    return fleet.deploy(wanted, [agent.device], downgrade_reason="bundles take turns in this test")


def _deploy_and_wait(side: FleetProcess, agent: AgentProcess, bundle: DigitsBundle, timeout_s: float) -> None:
    issued = _deploy(side.fleet, agent, bundle)
    ended = side.fleet.wait_for_deployments(issued, timeout_s)[0]
    assert ended.phase == "confirmed", ended


def _leftovers(state: Path) -> list[Path]:
    """Return what a finished update must not leave: partial files, temporary files, bundles that are in no slot."""
    partial = [*(state / "partial").iterdir(), *state.glob(".*.new")]
    return [*partial, *list((state / "bundles").iterdir())[2:]]


@pytest.mark.slow
def test_a_worker_killed_under_load_comes_back(
    fleet_side: FleetProcess, agent: AgentProcess, digits_bundles: list[DigitsBundle]
) -> None:
    import psutil

    fleet_side.fleet.publish(digits_bundles[0].path)
    wait_until(lambda: agent.device in fleet_side.fleet.device_names(), 30, "the device was never seen")
    _deploy_and_wait(fleet_side, agent, digits_bundles[0], 60)
    known = {bundle.version: bundle for bundle in digits_bundles}
    for _ in range(3):
        worker = wait_until(lambda: psutil.Process(agent.process.pid).children(), 20, "no worker")[0]
        worker.kill()
        agent.wait_serving(20)
        assert ask(agent, known) == (digits_bundles[0].version, True)
    assert np.isfinite(known[digits_bundles[0].version].expected).all()
