from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker
from tests.fakes.sites import Site


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    """A fake fleet, and agents as the test starts them."""
    with Site(tmp_path, broker.url) as site:
        yield site
