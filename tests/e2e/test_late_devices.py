"""A device that was away while the fleet went on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.agents import FLEET, AgentProcess
from tests.fakes.brokers import Broker
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.waiting import until

from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.service import serve
from autoglm_edge_fleet.trust import catalogue
from autoglm_edge_fleet.trust.custody import Foundation

pytestmark = pytest.mark.one_broker


async def test_an_order_whose_metadata_was_replaced_meanwhile_is_given_anew(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_STATES_KEPT", 1)
    said: list[str] = []

    def was_said(text: str) -> Callable[[], bool]:
        return lambda: any(line.startswith(text) for line in said)

    with Fleet.init(tmp_path / "fleet", FLEET, broker.url) as fleet:
        fleet.trust.found(Foundation(tmp_path / "root-keys", plain=True))
        bundle = make_model_bundle(tmp_path / "bundle", version="1")
        fleet.publish(bundle.directory)
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(fleet.directory, said.append, stop))
        try:
            issued = fleet.deploy(bundle.reference.id, ["dev-1"], create=True)
            await until(was_said("dev-1: told to run"), 20)
            fleet.trust.refresh(force=True)
            fleet.deploy(bundle.reference.id, ["dev-2"], create=True)
            await until(was_said("dev-2: told to run"), 20)  # by then the daemon has seen the newer metadata
            with AgentProcess(tmp_path / "agent", broker.url, root=fleet.trust.root_path):
                (ended,) = await asyncio.to_thread(fleet.wait_for_deployments, issued, 20)
        finally:
            stop.set()
            await serving
    assert was_said("dev-1: turned away what it was sent")()
    assert ended.phase == "confirmed"
