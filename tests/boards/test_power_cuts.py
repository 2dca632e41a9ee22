"""Power is taken from an emulated board in the middle of updates, again and again, and each time it comes back serving.

Every boot is the proof of the cut before it and the stage of the next: the order that was cut off goes on by itself,
and a newer one comes on top of it.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from tests.boards.disks import problems
from tests.boards.sites import SETTINGS, BoardSite
from tests.fakes.model_bundles import ModelBundle, make_model_bundle

from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_protocol.names import BundleId

CUTS = 10
WIDTH = 512
SEED = 20
STAGES = ("resolving", "fetching", "installing", "trying", "activating", "probation")
END = "confirmed"
LONGEST_S = 3.0
"""From a stage to the loss of power: longer than most of them take, so that each moment of an update may be it."""

PLAIN = (
    SETTINGS
    + "[probation.default]\nduration_s = 2\ninferences = 0\nmax_latency_ratio = 1000\nmax_memory_ratio = 1000\n"
)
INPUT = np.random.default_rng(1).standard_normal((1, WIDTH), dtype=np.float32)


def make(folder: Path, number: int) -> ModelBundle:
    """A release of a megabyte, of which nothing is in the one before."""
    return make_model_bundle(folder / str(number), "linear", f"{number}.0.0", width=WIDTH, seed=number, body=number)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_board_serves_after_every_loss_of_power(quick_site: BoardSite, tmp_path: Path) -> None:
    site = quick_site
    site.prepare(PLAIN)
    moments = random.Random(SEED)
    releases = {f"{number}.0.0": make(tmp_path / "bundles", number) for number in range(1, CUTS + 3)}
    for release in releases.values():
        site.fleet.publish(release.directory)
    versions = iter(releases)
    site.switch_on()
    device = site.wait("enrolled and connected", site.online).device.name
    _confirmed(site, _deploy(site, device, next(versions)))
    site.note("the first release is confirmed")
    served, midway = 1, 0
    for cut in range(1, CUTS + 1):
        order = _deploy(site, device, next(versions))
        stage, more_s = moments.choice(STAGES), moments.uniform(0, LONGEST_S)
        _wait_for(site, order, stage, more_s)
        phase = _phase(site, order)
        midway += phase != END
        site.note(f"cut {cut}: {order.bundle.version} is {phase}, up to {more_s:.1f} s after {stage}")
        site.machine.cut()
        site.switch_on()
        number = int(site.wait("it serves again", lambda: site.served(INPUT, releases), pause_s=1.0).split(".")[0])
        site.note(f"that is release {number}")
        assert served <= number <= cut + 1
        served = number
        site.wait("it is connected", site.online)
    assert midway >= CUTS // 2

    last = next(versions)
    _confirmed(site, _deploy(site, device, last))
    assert site.wait("the last release is served", lambda: site.served(INPUT, releases)) == last
    site.machine.cut()
    assert problems(site.machine.disk) == ""


def _deploy(site: BoardSite, device: str, version: str) -> Deployment:
    (order,) = site.fleet.deploy(BundleId.parse(f"linear@{version}"), [device])
    return order


def _phase(site: BoardSite, order: Deployment) -> str:
    (now,) = site.fleet.refresh([order])
    return now.phase


def _wait_for(site: BoardSite, order: Deployment, stage: str, more_s: float) -> None:
    """Wait until an update has come to a stage, and then some more, but not beyond its end."""
    reached = (*STAGES[STAGES.index(stage) :], END)
    site.wait(f"it is {stage}", lambda: _phase(site, order) in reached or None, pause_s=0.02)
    deadline = time.monotonic() + more_s
    while time.monotonic() < deadline and _phase(site, order) != END:
        time.sleep(0.02)


def _confirmed(site: BoardSite, order: Deployment) -> None:
    (ended,) = site.fleet.wait_for_deployments([order], 600)
    assert ended.phase == END, ended
