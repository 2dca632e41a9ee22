from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.agents import AgentProcess
from tests.fakes.brokers import Broker
from tests.fakes.fleet_processes import FleetProcess


@pytest.fixture
def fleet_side(broker: Broker, tmp_path: Path) -> Iterator[FleetProcess]:
    """The fleet's daemon at a real broker."""
    with FleetProcess(tmp_path / "fleet", broker.url) as process:
        yield process


@pytest.fixture
def agent(broker: Broker, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent at the same broker."""
    with AgentProcess(tmp_path / "agent", broker.url) as process:
        yield process
