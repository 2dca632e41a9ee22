from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.fakes.agents import AgentProcess
from tests.fakes.brokers import Broker
from tests.fakes.fleets import FakeFleet
from tests.fakes.model_bundles import make_model_bundle


def test_smoke(broker: Broker, tmp_path: Path) -> None:
    first = make_model_bundle(tmp_path / "b1", version="1.0.0", seed=1)
    second = make_model_bundle(tmp_path / "b2", version="2.0.0", seed=2)
    bad = make_model_bundle(tmp_path / "b3", version="3.0.0", seed=2, damage=True)
    x = np.random.default_rng(0).standard_normal((2, 64), dtype=np.float32)
    with FakeFleet(broker.url) as fleet, AgentProcess(tmp_path / "agent", broker.url) as agent:
        report = fleet.wait_phase(fleet.deploy(fleet.publish(first)), "confirmed", "failed")
        assert report.deployment and report.deployment.phase == "confirmed", report
        version, y = agent.infer("linear", x)
        assert version == "1.0.0"
        np.testing.assert_allclose(y, first.expected(x), rtol=1e-4, atol=1e-5)
        fleet.wait_phase(fleet.deploy(fleet.publish(second)), "confirmed")
        assert agent.infer("linear", x)[0] == "2.0.0"
        report = fleet.wait_phase(fleet.deploy(fleet.publish(bad)), "failed")
        print(report)
        assert agent.infer("linear", x)[0] == "2.0.0"
        answer = fleet.wait_answer(fleet.command("rollback"))
        print(answer)
        assert agent.infer("linear", x)[0] == "1.0.0"
        assert agent.stop() == 0
