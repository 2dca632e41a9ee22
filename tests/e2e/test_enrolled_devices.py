"""Devices with certificates of their own, at a broker that wants them: enrolled, renewed, replaced, revoked, cloned."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.enrolling import TERMS, agent, make_claim
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.guarded_brokers import GuardedBroker, Papers
from tests.fakes.guarded_fleets import guarded_fleet
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_fleet.broker_access.plan import Kind
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.local_broker import available_kinds

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Guarded:
    """A fleet that is served at a broker which lets nobody in without a certificate."""

    side: FleetProcess
    broker: GuardedBroker
    folder: Path

    @property
    def fleet(self) -> Fleet:
        return self.side.fleet

    def enrol(self, claim: Path, name: str) -> Path:
        identity = self.folder / name / "identity"
        done = agent("enrol", "--claim", claim, "--identity", identity, "--timeout", 90)
        assert done.returncode == 0, done.stderr
        return identity

    def is_online(self, device: str) -> bool:
        return any(each.name == device and each.online for each in self.fleet.devices())

    def reload(self) -> None:
        self.fleet.enrolment.broker.refresh()
        self.broker.reload()


def guarded(kind: Kind, folder: Path) -> Iterator[Guarded]:
    with guarded_fleet(kind, folder) as (side, broker):
        yield Guarded(side, broker, folder)


@pytest.fixture(params=available_kinds())
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    yield from guarded(request.param, tmp_path)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Guarded]:
    yield from guarded("mosquitto", tmp_path)


def running(identity: Path) -> AgentProcess:
    return AgentProcess(identity.parent, "", identity=identity)


def device_of(identity: Path) -> str:
    return str(json.loads((identity / "identity.json").read_text())["device"])


def test_from_two_claims_to_a_bundle_that_serves(both: Guarded, tmp_path: Path) -> None:
    """Everything that devices and fleet say to each other passes the broker's rights, what all devices get, too."""
    identities = [both.enrol(make_claim(both.fleet, tmp_path), f"board-{number}") for number in (1, 2)]
    devices = [device_of(identity) for identity in identities]
    bundle = make_model_bundle(tmp_path / "bundle", version="1", width=256, body=1)
    both.fleet.publish(bundle.directory)
    first, second = (running(identity) for identity in identities)
    with first, second:
        for device in devices:
            wait_until(lambda: both.is_online(device), 60, "a device is not seen")  # noqa: B023
        issued = both.fleet.deploy(bundle.reference.id, devices)
        ended = both.fleet.wait_for_deployments(issued, 120)
        assert [each.phase for each in ended] == ["confirmed", "confirmed"], ended
        answer = both.fleet.command(devices[0], "ping")
        queued = both.fleet.wait_for_answer(answer.command_id, 30)
        assert queued.answer is not None
        wait_until(lambda: all(each.telemetry for each in both.fleet.status()), 90, "no telemetry comes")


def test_a_certificate_is_renewed_before_it_runs_out_and_used(one: Guarded, tmp_path: Path) -> None:
    identity = one.enrol(make_claim(one.fleet, tmp_path), "board")
    device, old = device_of(identity), (identity / "device.pem").read_text()
    record = json.loads((identity / "identity.json").read_text())
    # As if the greater part of a year had passed.
    passed = 300 * 86_400
    changed = {"not_before": record["not_before"] - passed, "not_after": record["not_after"] - passed}
    (identity / "identity.json").write_text(json.dumps(record | changed))
    with sqlite3.connect(one.fleet.directory / "fleet.db") as database:
        database.execute("UPDATE certificates SET not_before = ?, not_after = ?", tuple(changed.values()))
    database.close()
    with running(identity) as process:
        wait_until(lambda: (identity / "device.pem").read_text() != old, 90, "it is not renewed")
        wait_until(lambda: "the certificate is renewed" in process.log_text(), 60, "it does not say so")
        renewed = json.loads((identity / "identity.json").read_text())
        assert renewed["not_after"] >= record["not_after"]
        assert renewed["client_id"] == record["client_id"]
        # The next connection shows the new one: the old one is taken back.
        with sqlite3.connect(one.fleet.directory / "fleet.db") as database:
            revoke = "UPDATE certificates SET revoked_at = 1 WHERE not_after = ?"
            assert database.execute(revoke, (changed["not_after"],)).rowcount == 1
        database.close()
        one.fleet.enrolment.broker.refresh()
        before = process.log_text().count("connected to the broker, session")
        one.broker.restart()
        wait_until(
            lambda: process.log_text().count("connected to the broker, session") > before, 90, "it does not return"
        )
    assert one.fleet.enrolment.certificates()[device].revoked_at is None


def test_a_revoked_device_stays_out_and_another_board_takes_its_place(one: Guarded, tmp_path: Path) -> None:
    old = one.enrol(make_claim(one.fleet, tmp_path), "old")
    device = device_of(old)
    claim = tmp_path / "replacement.json"
    claim.write_text(one.fleet.enrolment.replace_device(device, TERMS).to_text())
    # Until the new board is there the old one goes on.
    assert _is_let_in(one, old)
    new = one.enrol(claim, "new")
    assert device_of(new) == device
    one.reload()
    wait_until(lambda: not _is_let_in(one, old), 60, "the old board is still let in")
    assert _is_let_in(one, new)

    one.fleet.enrolment.revoke_device(device, "stolen")
    one.reload()
    wait_until(lambda: not _is_let_in(one, new), 60, "a revoked device is still let in")
    refused = agent("enrol", "--claim", claim, "--identity", tmp_path / "again", "--timeout", 90)
    assert refused.returncode == 3
    assert "(claim-used)" in refused.stderr


def _is_let_in(ground: Guarded, identity: Path) -> bool:
    papers = Papers(identity / "device.pem", identity / "device.key")
    with ground.broker.device(papers, "autoglm-looks") as visitor:
        return visitor.is_in


@pytest.mark.parametrize("lost", ["identity.json", "device.pem"])
def test_a_board_that_no_longer_knows_who_it_is_serves_and_comes_back_with_a_new_claim(
    one: Guarded, tmp_path: Path, lost: str
) -> None:
    identity = one.enrol(make_claim(one.fleet, tmp_path), "board")
    device = device_of(identity)
    bundle = make_model_bundle(tmp_path / "bundle", version="1", width=64, body=1)
    one.fleet.publish(bundle.directory)
    with running(identity) as process:
        wait_until(lambda: one.is_online(device), 60, "the device is not seen")
        (ended,) = one.fleet.wait_for_deployments(one.fleet.deploy(bundle.reference.id, [device]), 120)
        assert ended.phase == "confirmed", ended
        assert process.stop() == 0
    _damage(identity / lost)
    with running(identity) as process:
        process.wait_serving()
        wait_until(lambda: "or a new claim is here" in process.log_text(), 30, "it does not say what is the matter")
        claim = tmp_path / "replacement.json"
        claim.write_text(one.fleet.enrolment.replace_device(device, TERMS).to_text())
        done = agent("enrol", "--claim", claim, "--identity", identity, "--timeout", 90)
        assert done.returncode == 0, done.stderr
        assert "asking the fleet for it with the claim" in done.stderr
        wait_until(lambda: process.process.poll() is not None, 60, "it does not look who it is")
        assert process.process.returncode == 1
        assert "is read by the next start" in process.log_text()
    with running(identity):
        wait_until(lambda: one.is_online(device), 60, "the device is not seen again")


def _damage(path: Path) -> None:
    if path.suffix == ".json":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        path.unlink()


def test_a_cloned_card_is_noticed(one: Guarded, tmp_path: Path) -> None:
    """Two boards with one identity: each ends the other's connection, and each says what board it is."""
    identity = one.enrol(make_claim(one.fleet, tmp_path), "board")
    device = device_of(identity)
    copy = tmp_path / "copy" / "identity"
    shutil.copytree(identity, copy)
    boards = [_other_board(tmp_path / f"serial-{number}", number) for number in (1, 2)]
    first, second = running(identity), running(copy)
    first.wrapper, second.wrapper = boards
    with first:
        wait_until(lambda: one.is_online(device), 90, "the device is not seen")
        with second:
            wait_until(lambda: "CLONED" in one.fleet.enrolment.suspicions().get(device, ""), 60, "it is not noticed")
    assert any(entry.action == "seen on another board" for entry in one.fleet.audit())
    assert f"{device}: CLONED" in one.side.log.read_text()


def _other_board(folder: Path, number: int) -> list[str]:
    """A wrapper that runs a command where the board has another serial number."""
    folder.mkdir()
    program = folder / "on-board.py"
    program.write_text(
        "import runpy, sys\n"
        "from autoglm_edge_agent.enrolment import board_id\n"
        f"board_id._serial = lambda root: '{number:016x}'\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return [sys.executable, str(program)]
