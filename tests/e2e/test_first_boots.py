"""First boots as they go wrong: no network at first, no clock, a claim that is none. The board recovers by itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest
from tests.e2e.enrolling import TERMS, agent, make_claim
from tests.fakes.agents import FLEET, wait_until
from tests.fakes.brokers import Broker
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.guarded_brokers import GuardedBroker

from autoglm_edge_fleet.database import DATABASE_FILE, Database
from autoglm_edge_fleet.enrolment.registrar import Registrar
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, Passphrases
from autoglm_edge_protocol.mqtt import Link, Message
from autoglm_edge_protocol.topics import Channel, Topic, fleet_filters, parse_topic

DAY_S = 86_400.0


@pytest.mark.one_broker
@pytest.mark.slow
def test_a_board_waits_for_the_broker_and_then_for_the_fleet(broker: Broker, tmp_path: Path) -> None:
    side = FleetProcess(tmp_path / "fleet", broker.url)
    claim = make_claim(side.fleet, tmp_path)
    broker.stop()
    log = tmp_path / "enrol.log"
    with log.open("w") as file:
        board = _begin(claim, tmp_path / "identity", file)
    try:
        wait_until(lambda: "waits for the broker: " in log.read_text(), 60, "it does not say what it waits for")
        broker.start()
        with side:
            assert board.wait(90) == 0, log.read_text()
    finally:
        board.kill()
    assert (tmp_path / "identity" / "identity.json").is_file()


@pytest.mark.one_broker
def test_while_the_authoritys_key_is_locked_no_claim_is_used_up(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    fleet = Fleet.init(tmp_path / "fleet", FLEET, broker.url, Passphrases("of the authority"))
    fleet.enrolment.found()
    claim = make_claim(fleet, tmp_path)
    with FleetProcess(tmp_path / "fleet", broker.url, fleet) as side, (tmp_path / "enrol.log").open("w") as file:
        board = _begin(claim, tmp_path / "identity", file)
        try:
            wait_until(lambda: "a certificate is asked for and cannot be given" in side.log.read_text(), 60, "not said")
        finally:
            board.kill()
            board.wait()
        assert "is encrypted: set" in side.log.read_text()
        assert [each.state for each in fleet.enrolment.claims()] == ["open"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        ("", "not a valid claim: not JSON"),
        ("{}", "not a valid claim: fleet: Field required"),
        ('{"schema_version": 2}', "update"),
    ],
)
def test_what_is_no_claim_is_one_line(tmp_path: Path, content: str | None, problem: str) -> None:
    claim = tmp_path / "claim.json"
    if content is not None:
        claim.write_text(content)
    done = agent("enrol", "--claim", claim, "--identity", tmp_path / "identity")
    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "identity").exists()


def test_an_identity_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "fleet", FLEET) as fleet:
        claim = make_claim(fleet, tmp_path)
    (tmp_path / "file").write_text("")
    done = agent("enrol", "--claim", claim, "--identity", tmp_path / "file" / "identity")
    assert done.returncode == 1
    assert "Not a directory" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
async def test_a_board_whose_clock_is_behind_enrols_over_tls(tmp_path: Path) -> None:
    """The broker's certificate begins in a year, and it is later than that, as all but this board's clock says."""
    later = time.time() + 400 * DAY_S
    with Fleet.init(tmp_path / "fleet", FLEET) as fleet:
        broker = GuardedBroker(fleet, "mosquitto", tmp_path / "broker")
        fleet.use_broker(*broker.urls)
    with Fleet.open(tmp_path / "fleet") as fleet:
        certificate, key = fleet.enrolment.authority.issue_server(["127.0.0.1"], later)
        (broker.folder / "broker.pem").write_text(certificate.pem)
        (broker.folder / "broker.key").write_bytes(key)
        database = Database(fleet.directory / DATABASE_FILE)
        registrar = Registrar(fleet.directory, fleet.config, Passphrases(), lambda _line: None)

        async def take(message: Message) -> None:
            reply = registrar.enrol(database, parse_topic(message.topic).device, message.payload)
            await link.publish(str(Topic(FLEET, reply.to, Channel.ENROLLED)), reply.payload)

        (made,) = fleet.enrolment.create_claims(1, TERMS)
        believing, doubting = tmp_path / "later.json", tmp_path / "now.json"
        believing.write_text(made.model_copy(update={"created_at": later}).to_text())
        doubting.write_text(made.to_text())
        address = replace(fleet.config.address(fleet.directory), time_floor=later)
        with broker:
            link = Link(address, "fleet", fleet_filters(FLEET), take)
            await link.start()
            await link.wait_connected(20)
            with (tmp_path / "doubting.log").open("w") as log:
                doubter = _begin(doubting, tmp_path / "doubting", log)
                try:
                    said = tmp_path / "doubting.log"
                    await asyncio.to_thread(wait_until, lambda: said.read_text(), 90, "it says nothing")
                finally:
                    doubter.kill()
                    doubter.wait()
            options = ("enrol", "--claim", believing, "--identity", tmp_path / "believing", "--timeout", 90)
            done = await asyncio.to_thread(agent, *options, timeout_s=120)
            await link.stop()
        database.close()
    assert done.returncode == 0, done.stderr
    assert "certificate is not yet valid" in said.read_text()


def _begin(claim: Path, identity: Path, log: TextIO) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).with_name("autoglm-edge-agent"))
    return subprocess.Popen([program, "enrol", "--claim", str(claim), "--identity", str(identity)], stderr=log)
