from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.sites import Site


@pytest.fixture
def site(broker: Any, tmp_path: Path) -> Iterator[Site]:
    """A fake fleet, and agents as the test starts them."""
    with Site(tmp_path, broker.url) as site:
        yield site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show the agents' logs of a test that failed."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections += [(f"log of {agent.device}", agent.log_text()[-8000:]) for agent in site.agents]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count a test as slow where it is repeated for another broker: what differs there is the link's business."""
    brokers: dict[str, str] = {}
    for item in items:
        callspec = getattr(item, "callspec", None)
        kind = callspec.params.get("broker") if callspec else None
        if kind is not None and brokers.setdefault("first", kind) != kind:
            item.add_marker(pytest.mark.slow)
