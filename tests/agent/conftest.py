from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes.agents import AgentProcess
from tests.fakes.fleets import FakeFleet
from tests.fakes.model_bundles import Array, ModelBundle, make_model_bundle

from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, ReportedState

INPUT = np.random.default_rng(0).standard_normal((2, 64), dtype=np.float32)


class Site:
    """A fleet of one device: the fake fleet and a real agent, on a broker that other tests may use too."""

    def __init__(self, fleet: FakeFleet, directory: Path, broker_url: str) -> None:
        self.fleet = fleet
        self.directory = directory
        self.broker_url = broker_url
        self.agents: list[AgentProcess] = []

    def agent(self, device: str = "dev-1", **options: Any) -> AgentProcess:
        agent = AgentProcess(
            self.directory / device, self.broker_url, device, fleet=self.fleet.name, **options
        )
        self.agents.append(agent)
        return agent.start()

    def bundle(self, version: str, **options: Any) -> ModelBundle:
        return make_model_bundle(self.directory / f"bundle-{version}", version=version, **options)

    def deploy(self, bundle: ModelBundle) -> int:
        return self.fleet.deploy(self.fleet.publish(bundle))

    def confirm(self, bundle: ModelBundle) -> ReportedState:
        return self.fleet.wait_phase(self.deploy(bundle), "confirmed")

    def refused(self, generation: int, timeout_s: float = 60) -> DeploymentReport:
        """Wait until this generation is refused; returns the report of it."""
        report = self.fleet.wait_phase(generation, "failed", timeout_s=timeout_s).deployment
        assert report is not None
        return report

    def assert_serves(self, agent: AgentProcess, bundle: ModelBundle, x: Array = INPUT) -> None:
        version, y = agent.infer("linear", x)
        assert version == bundle.reference.version
        # float32 sums of 64 terms of about 1/8: a different order of additions moves them by some 1e-6
        np.testing.assert_allclose(y, bundle.expected(x), rtol=1e-4, atol=1e-5)


@pytest.fixture
def site(broker: Any, tmp_path: Path) -> Iterator[Site]:
    with FakeFleet(broker.url, f"fleet-{uuid.uuid4().hex[:12]}") as fleet:
        site = Site(fleet, tmp_path, broker.url)
        try:
            yield site
        finally:
            for agent in site.agents:
                agent.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show the agents' logs of a test that failed."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections += [(f"log of {agent.device}", agent.log_text()[-8000:]) for agent in site.agents]
    return report


def reference_of(bundle: ModelBundle, **changes: Any) -> BundleReference:
    return bundle.reference.model_copy(update=changes)
