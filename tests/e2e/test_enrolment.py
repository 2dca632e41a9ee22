"""From a claim to a device that serves a bundle, with the real commands and a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.enrolling import agent, make_claim
from tests.fakes.agents import wait_until
from tests.fakes.brokers import Broker
from tests.fakes.fleet_processes import FleetProcess

from autoglm_edge_fleet.enrolment.claims import ClaimTerms


@pytest.fixture
def claim(fleet_side: FleetProcess, tmp_path: Path) -> Path:
    """A claim, as a board has it."""
    return make_claim(fleet_side.fleet, tmp_path)


@pytest.mark.one_broker
def test_a_board_becomes_a_device_once(fleet_side: FleetProcess, broker: Broker, claim: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "identity", tmp_path / "another"
    done = agent("enrol", "--claim", claim, "--identity", first, "--timeout", 90)
    assert done.returncode == 0, done.stderr
    identity = json.loads((first / "identity.json").read_text())
    assert identity["device"].startswith("cam-")
    assert (first / "device.key").stat().st_mode & 0o777 == 0o600
    assert first.stat().st_mode & 0o777 == 0o700

    again = agent("enrol", "--claim", claim, "--identity", first)
    assert (again.returncode, again.stdout) == (0, done.stdout)

    copied = agent("enrol", "--claim", claim, "--identity", second, "--timeout", 90)
    assert (copied.returncode, copied.stdout) == (3, "")
    assert copied.stderr.count("\n") == 1
    assert "(claim-used)" in copied.stderr
    assert sorted(path.name for path in second.iterdir()) == ["device.key"]
    (row,) = fleet_side.fleet.enrolment.claims()
    assert (row.state, row.device) == ("used", identity["device"])
    assert row.contested_board
    assert fleet_side.fleet.enrolment.tags() == {identity["device"]: {"site": "berlin"}}

    config = tmp_path / "agent.toml"
    config.write_text(
        f'[device]\nidentity = "{first}"\n[storage]\ndirectory = "{tmp_path / "state"}"\n[inference]\n'
        'http = "127.0.0.1:0"\n'
    )
    checked = agent("check", "-c", config)
    assert checked.returncode == 0, checked.stderr
    assert f"device {identity['device']} of fleet {fleet_side.fleet.config.name} at {broker.url}" in checked.stdout


@pytest.mark.one_broker
def test_a_board_waits_until_it_is_approved(fleet_side: FleetProcess, broker: Broker, tmp_path: Path) -> None:
    enrolment = fleet_side.fleet.enrolment
    claim = make_claim(fleet_side.fleet, tmp_path, ClaimTerms(3600, {}, needs_approval=True))
    command = [
        str(Path(sys.executable).with_name("autoglm-edge-agent")),
        *("enrol", "--claim", str(claim), "--identity", str(tmp_path / "identity"), "--timeout", "120"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as board:
        try:
            wait_until(lambda: enrolment.claims()[0].state == "waiting", 90, "nobody asks")
            device = enrolment.claims()[0].device
            assert device is not None
            assert not (tmp_path / "identity" / "identity.json").exists()
            enrolment.approve(device)
            out, err = board.communicate(timeout=90)
        finally:
            board.kill()
    assert board.returncode == 0, err
    assert "waits for the fleet's owner" in err
    assert out.startswith(f"device {device} of fleet")
