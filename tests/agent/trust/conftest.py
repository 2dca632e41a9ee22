from __future__ import annotations

from pathlib import Path

import pytest
from tests.agent.trust.devices import GatedDevice


@pytest.fixture
def device(tmp_path: Path) -> GatedDevice:
    """A device that has accepted nothing yet."""
    return GatedDevice(tmp_path / "trust")
