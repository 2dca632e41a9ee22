from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker, available_kinds


@pytest.fixture(params=available_kinds())
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A running broker, each kind that is installed in turn."""
    running = Broker(request.param, tmp_path / "broker")
    running.start()
    yield running
    running.stop()
