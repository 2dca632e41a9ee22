"""A disk that its kernel has made read-only, as it does when a card begins to fail."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.sites import INPUT, Site

pytestmark = pytest.mark.one_broker

_READ_ONLY = [
    "unshare",
    "-m",
    "sh",
    "-c",
    'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"',
]


def _needs_mounts(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if subprocess.run([*_READ_ONLY, "sh", str(directory), "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount anything")


def test_the_model_serves_from_a_disk_that_takes_nothing_any_more(site: Site, tmp_path: Path) -> None:
    _needs_mounts(tmp_path / "mounted")
    agent = site.agent()
    site.confirm(site.bundle("1"))
    assert agent.stop() == 0
    agent.wrapper = [*_READ_ONLY, "sh", str(agent.state)]
    agent.start()
    agent.wait_serving()
    assert agent.infer("linear", INPUT)[0] == "1"
    site.deploy(site.bundle("2", seed=2))
    wait_until(lambda: "cannot be judged or kept yet" in agent.log_text(), 20, "the order was not looked at")
    assert agent.infer("linear", INPUT)[0] == "1"
    assert agent.stop() == 0
