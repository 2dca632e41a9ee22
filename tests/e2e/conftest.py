from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.digits import EXAMPLES, DigitsBundle, images, original_answers
from tests.fakes.agents import AgentProcess
from tests.fakes.brokers import Broker
from tests.fakes.fleet_processes import FleetProcess

from autoglm_edge_converter import Options, convert


@pytest.fixture
def fleet_side(broker: Broker, tmp_path: Path) -> Iterator[FleetProcess]:
    """The fleet's daemon at a real broker."""
    with FleetProcess(tmp_path / "fleet", broker.url) as process:
        yield process


@pytest.fixture
def agent(broker: Broker, tmp_path: Path, fleet_side: FleetProcess) -> Iterator[AgentProcess]:
    """An agent at the same broker, which trusts the fleet's root."""
    with AgentProcess(tmp_path / "agent", broker.url, root=fleet_side.fleet.trust.root_path) as process:
        yield process


@pytest.fixture(scope="session")
def digits_bundles(tmp_path_factory: pytest.TempPathFactory) -> list[DigitsBundle]:
    """Four releases of `digits`: two networks, each as float and as INT8, made by the converter."""
    folder = tmp_path_factory.mktemp("digits")
    samples = folder / "calibration.npz"
    np.savez(samples, x=images(200, "calibration"))
    releases = [(network, precision) for network in ("res", "mbn") for precision in ("fp32", "int8")]
    made = []
    for number, (network, precision) in enumerate(releases, start=1):
        options = Options(name="digits", version=f"{number}.0.0", precisions=(precision,), max_drop=0.05, budget_s=20)
        result = convert(EXAMPLES / f"{network}.onnx", samples, folder, options)
        made.append(DigitsBundle(f"{number}.0.0", result.packed, original_answers(network)))
    return made
