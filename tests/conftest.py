from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fakes.brokers import Broker

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests speak to nobody outside

GIVEN_BROKERS = "AUTOGLM_EDGE_TEST_BROKERS"
"""Addresses of running brokers, by kind: `mosquitto=mqtt://... nats=mqtt://...`. Set for the tests of an environment
that has the agent alone and so cannot start a broker with the fleet's code."""


@dataclass(frozen=True)
class GivenBroker:
    """A broker that somebody else runs: it can be used, not killed."""

    url: str


def _given() -> dict[str, str]:
    pairs = (item.partition("=") for item in os.environ.get(GIVEN_BROKERS, "").split())
    return {kind: url for kind, _, url in pairs}


def _kinds() -> tuple[str, ...]:
    if given := _given():
        return tuple(given)
    from tests.fakes.brokers import available_kinds

    return available_kinds()


@pytest.fixture(params=_kinds())
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker | GivenBroker]:
    """A running broker, each kind that is installed in turn."""
    if given := _given():
        yield GivenBroker(given[request.param])
        return
    from tests.fakes.brokers import Broker

    running = Broker(request.param, tmp_path / "broker")
    running.start()
    yield running
    running.stop()
