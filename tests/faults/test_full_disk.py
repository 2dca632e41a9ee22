"""A disk that is really full, before and during a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.fakes.agents import wait_until
from tests.fakes.sites import Site
from tests.faults.small_disks import SmallDisk

from autoglm_edge_protocol.commands import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.one_broker]

MB = 1_000_000
SIZE_BYTES = 16 * MB
WIDE = 80_000  # a model of 3.2 MB


@pytest.fixture(params=["mounted", "injected"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> SmallDisk:
    return SmallDisk(tmp_path / "small", SIZE_BYTES, mounted=request.param == "mounted")


def _serves(site: Site, version: str, width: int) -> None:
    assert site.agents[0].infer("linear", np.zeros((1, width), np.float32))[0] == version


def test_too_little_space_is_told_before_anything_is_fetched(site: Site, disk: SmallDisk) -> None:
    agent = site.agent(wrapper=disk.wrapper, state=disk.directory, reserve_bytes=10 * MB)
    old, new = site.bundle("1"), site.bundle("2", seed=2, width=WIDE)
    site.confirm(old)
    disk.fill(agent.process.pid, 5 * MB)
    before = site.fleet.sent_bytes
    report = site.hindered(generation := site.deploy(new), "insufficient-space")
    assert report.reason is not None
    print(report.reason.message)
    assert f"{10 * MB} kept free" in report.reason.message and "bytes are to be fetched" in report.reason.message
    assert site.fleet.sent_bytes - before < 10_000  # the manifest
    _serves(site, "1", 64)
    disk.free(agent.process.pid)
    site.fleet.wait_phase(generation, "confirmed")
    _serves(site, "2", WIDE)


def test_a_disk_that_fills_up_during_the_download(site: Site, disk: SmallDisk) -> None:
    agent = site.agent(wrapper=disk.wrapper, state=disk.directory)
    old, new = site.bundle("1"), site.bundle("2", seed=2, width=WIDE)
    site.confirm(old)
    site.fleet.block_pause_s = 0.05
    generation = site.deploy(new)
    site.fleet.wait_phase(generation, "fetching")
    disk.fill(agent.process.pid)
    report = site.hindered(generation, "disk-full")
    assert report.phase == "fetching"
    _serves(site, "1", 64)
    ping = site.fleet.command("ping")  # its answer has to wait for the disk, it is not lost
    site.hindered(generation, "insufficient-space")
    _serves(site, "1", 64)
    site.fleet.block_pause_s = 0.0
    disk.free(agent.process.pid)
    assert site.fleet.wait_answer(ping).outcome is Outcome.SUCCEEDED
    report = site.fleet.wait_phase(generation, "confirmed").deployment or report
    assert report.fetched_bytes + report.present_bytes == report.total_bytes
    _serves(site, "2", WIDE)


def test_a_new_order_while_the_disk_is_full_is_carried_out_afterwards(site: Site, disk: SmallDisk) -> None:
    agent = site.agent(wrapper=disk.wrapper, state=disk.directory)
    site.confirm(site.bundle("1"))
    disk.fill(agent.process.pid)
    generation = site.deploy(site.bundle("2", seed=2))
    wait_until(
        lambda: "a desired state cannot be judged or kept yet" in agent.log_text(), 20, "the order was not taken"
    )
    _serves(site, "1", 64)
    disk.free(agent.process.pid)
    site.fleet.wait_phase(generation, "confirmed")
    _serves(site, "2", 64)
