from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker
from tests.fakes.model_bundles import ModelBundle, add_rival, make_model_bundle
from tests.fakes.onnx_writer import linear_model
from tests.fakes.sites import Site
from tests.faults.messages import verify_here
from tests.faults.scenarios import prepare

from autoglm_edge_agent import commands
from autoglm_edge_agent.trust import gate, intake, offline
from autoglm_edge_agent.updates import loop, watch


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    """A fake fleet, and agents as the test starts them."""
    with Site(tmp_path, broker.url) as site:
        yield site


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(loop, "LAST_RETRY_S", 0.002)
    monkeypatch.setattr(watch, "LOOK_S", 0.001)
    monkeypatch.setattr(intake, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(commands, "RETRY_S", 0.001)
    monkeypatch.setattr(offline, "LOOK_S", 0.001)
    monkeypatch.setattr(gate, "verify", verify_here)
    logging.disable(logging.WARNING)  # thousands of faults, each with a line
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[ModelBundle]:
    # They share a layer of 262 KB, at another place in each file: some chunks are copied on the device, some fetched.
    folder = tmp_path_factory.mktemp("bundles")
    found = [
        make_model_bundle(folder / str(n), version=str(n), seed=n, width=256, body=1, note="n" * n)
        for n in (1, 2, 3, 4)
    ]
    last = found[3]
    model = linear_model(last.weights, last.bias, body=last.body, note="another file")
    return [*found[:3], add_rival(last, model, told=1.0, unknown="board")]


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of updates sync their files, and disks take their time."""
    shelf = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shelf if os.access(shelf, os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture
def beginning(quick: None, memory_path: Path, bundles: list[ModelBundle]) -> Path:
    """The state of a device that serves the first two bundles as previous and current."""
    return prepare(memory_path / "beginning", bundles)
