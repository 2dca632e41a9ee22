"""Attacks on a real agent over a real broker: what it reports, and that the model of before serves on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.fleets import Spoil
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.signing import DAY_S, FakeRepository, fresh_signer
from tests.fakes.sites import Site
from tests.fakes.sticks import HttpsServer, write_repository

from autoglm_edge_protocol.commands import Command, Outcome
from autoglm_edge_protocol.deployment import DesiredState, ReportedState
from autoglm_edge_protocol.topics import Channel, Topic

pytestmark = pytest.mark.one_broker

Attack = Callable[[Site, DesiredState], bytes]


def _desired(site: Site, bundle: ModelBundle, generation: int = 9, device: str = "dev-1") -> DesiredState:
    return DesiredState(fleet=site.fleet.name, device=device, generation=generation, bundle=bundle.reference)


def _refusal(site: Site, code: str, timeout_s: float = 40) -> str:
    """Wait until the device reports a refusal; returns its message."""

    def found() -> str | None:
        trust = site.fleet.reports["dev-1"].trust if "dev-1" in site.fleet.reports else None
        return trust.refusal.message if trust and trust.refusal and trust.refusal.code == code else None

    return str(
        wait_until(found, timeout_s, lambda: f"never refused with {code}; last {site.fleet.reports.get('dev-1')}")
    )


def _send(site: Site, message: bytes, channel: Channel = Channel.DESIRED) -> None:
    site.fleet.send(Topic(site.fleet.name, "dev-1", channel), message, retain=channel is Channel.DESIRED)


def _report(site: Site) -> ReportedState:
    return site.fleet.reports["dev-1"]


def _by_stranger(site: Site, desired: DesiredState) -> bytes:
    return site.fleet.signed(desired, by=[fresh_signer("stranger")])


def _to_another_fleet(site: Site, desired: DesiredState) -> bytes:
    return site.fleet.repository.message(desired, "other")


def _expired(site: Site, desired: DesiredState) -> bytes:
    return site.fleet.signed(desired, signed_at=time.time() - 2 * DAY_S, expires_at=time.time() - DAY_S)


def _strangers_metadata(site: Site, desired: DesiredState) -> bytes:
    stranger = FakeRepository("stranger")
    assert desired.bundle is not None
    stranger.add(desired.bundle)
    site.fleet.served |= {file.sha256: stranger.files[name] for name, file in stranger.catalogue().items()}
    catalogue = {name: file for name, file in stranger.catalogue().items() if "root" not in name}
    return site.fleet.signed(desired, catalogue=catalogue)


ATTACKS: list[tuple[str, str, Attack]] = [
    ("forged", "untrusted-signature", _by_stranger),
    ("not signed", "untrusted-signature", lambda _site, desired: desired.to_bytes()),
    ("replayed", "replayed", lambda s, d: s.fleet.signed(d.model_copy(update={"generation": 1}))),
    ("to another device", "wrong-device", lambda s, d: s.fleet.signed(d.model_copy(update={"device": "dev-2"}))),
    ("to another fleet", "wrong-fleet", _to_another_fleet),
    ("expired", "expired", _expired),
    ("truncated", "malformed-message", lambda s, d: s.fleet.signed(d)[:-1]),
    ("a bundle that nobody has signed", "unknown-target", lambda s, d: s.fleet.signed(d)),
    ("metadata by a stranger", "untrusted-metadata", _strangers_metadata),
]


def test_every_attack_on_a_desired_state_is_reported_and_changes_nothing(site: Site) -> None:
    agent = site.agent()
    first, second, wanted = (site.bundle(str(number), seed=number) for number in (1, 2, 3))
    site.confirm(first)
    site.confirm(second)
    slots = _report(site).current, _report(site).previous
    site.fleet.publish(wanted)
    for name, code, attack in ATTACKS:
        _send(site, attack(site, _desired(site, wanted)))
        message = _refusal(site, code)
        print(f"{name}: {code}: {message}")
        assert (_report(site).current, _report(site).previous) == slots, name
        deployment = _report(site).deployment
        assert deployment is not None and deployment.generation == 2 and deployment.phase == "confirmed", name
    site.assert_serves(agent, second)
    site.confirm(wanted)
    trust = _report(site).trust
    assert trust is not None and trust.refusal is None and trust.mode == "signed" and trust.root_version == 1
    site.assert_serves(agent, wanted)


def test_a_tampered_bundle_is_refused(site: Site) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    model = (second.directory / "variants/fp32/model.onnx").read_bytes()
    site.fleet.spoil = _flip(len(model))
    report = site.refused(site.deploy(second))
    assert report.reason is not None and report.reason.code == "corrupt-data"
    site.assert_serves(agent, first)


def _flip(size_bytes: int) -> Spoil:
    def spoil(_sha256: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
        return [(offset, data[:-1] + bytes([data[-1] ^ 1]) if len(data) == size_bytes else data)]

    return spoil


def test_a_downgrade_needs_a_signed_reason(site: Site) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    site.confirm(second)
    site.fleet.deploy(first.reference, downgrade_reason=None)
    assert "linear@1 is older than 2" in _refusal(site, "downgrade")
    agent.kill()
    site.fleet.reports.clear()
    agent.start()
    agent.wait_serving()
    _refusal(site, "downgrade")
    site.assert_serves(agent, second)
    generation = site.fleet.deploy(first.reference, downgrade_reason="2 is blind in the dark")
    site.fleet.wait_phase(generation, "confirmed")
    trust = _report(site).trust
    assert trust is not None and trust.override is not None and "2 is blind in the dark" in trust.override.message
    site.assert_serves(agent, first)


def test_a_generation_does_not_come_back_after_a_rollback_and_a_restart(site: Site) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    old = site.fleet.signed(_desired(site, first, generation=1))
    site.confirm(second)
    assert site.fleet.wait_answer(site.fleet.command("rollback")).outcome is Outcome.SUCCEEDED
    agent.kill()
    agent.start()
    agent.wait_serving()
    _send(site, old)
    _refusal(site, "replayed")
    assert _report(site).deployment is not None and _report(site).deployment.generation == 2  # type: ignore[union-attr]
    site.assert_serves(agent, first)


def test_attacks_on_commands_get_no_answer(site: Site) -> None:
    agent = site.agent()
    bundle = site.bundle("1")
    site.confirm(bundle)
    command = Command(command_id="attack", device="dev-1", name="restart-worker")
    messages = {
        "untrusted-signature": site.fleet.signed(command, by=[fresh_signer("stranger")]),
        "wrong-device": site.fleet.signed(command.model_copy(update={"device": "dev-2"})),
        "wrong-fleet": site.fleet.repository.message(command, "other"),
        "malformed-message": site.fleet.signed(command)[:-1],
    }
    (worker,) = agent.worker_pids()
    for code, message in messages.items():
        _send(site, message, Channel.COMMAND)
        _refusal(site, code)
    late = site.fleet.command("ping", command_id="late", expires_at=time.time() - 1)
    assert site.fleet.wait_answer(late).outcome is Outcome.EXPIRED
    assert site.fleet.wait_answer(site.fleet.command("ping")).outcome is Outcome.SUCCEEDED
    assert not any(answer.command_id == "attack" for answer in site.fleet.answers)
    assert worker in agent.worker_pids()


def test_without_a_root_everything_is_refused_and_it_is_said_why(site: Site) -> None:
    agent = site.agent(root=None)
    site.deploy(site.bundle("1"))
    assert "no root metadata" in _refusal(site, "no-trust-root")
    trust = _report(site).trust
    assert trust is not None and trust.mode == "no-root"
    site.fleet.command("ping")
    time.sleep(1)
    assert site.fleet.answers == [] and "[trust] root" in agent.log_text()


def test_an_insecure_agent_says_so_at_every_start(site: Site) -> None:
    agent = site.agent(insecure=True)
    bundle = site.bundle("1")
    site.confirm(bundle)
    trust = _report(site).trust
    assert trust is not None and trust.mode == "insecure"
    _send(site, _desired(site, bundle, generation=2).to_bytes())
    site.fleet.wait_phase(2, "confirmed")
    agent.stop()
    agent.start()
    agent.wait_serving()
    assert agent.log_text().count("INSECURE") == 2


def test_the_director_is_replaced_by_a_new_root(site: Site) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    old = list(site.fleet.repository.directors)
    site.fleet.repository.directors = [fresh_signer("next-director")]
    site.fleet.repository.rotate()
    site.confirm(second)
    agent.kill()
    agent.start()
    agent.wait_serving()
    _send(site, site.fleet.signed(_desired(site, first), by=old))
    _refusal(site, "untrusted-signature")
    site.assert_serves(agent, second)


def test_metadata_that_the_broker_spoils_is_refused_and_recovers(site: Site) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    site.fleet.spoil_metadata = lambda _digest, offset, data: [(offset, data[::-1])]
    site.deploy(second)
    _refusal(site, "metadata-missing")
    site.assert_serves(agent, first)
    site.fleet.spoil_metadata = None
    site.confirm(second)


# the same repository from elsewhere ----


def _stick(site: Site, bundle: ModelBundle, generation: int = 1) -> Path:
    """A stick with a bundle, its metadata and a desired state for this device."""
    site.fleet.repository.add(bundle.reference)
    folder = write_repository(site.directory / "stick", site.fleet.repository, bundle)
    (folder / "desired").mkdir(exist_ok=True)
    message = site.fleet.signed(_desired(site, bundle, generation), catalogue={})
    (folder / "desired" / "dev-1.json").write_bytes(message)
    return folder


def _update(agent: AgentProcess, folder: Path) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("autoglm-edge-agent"))
    command = [program, "update", "--from", str(folder), "-c", str(agent.config), "--timeout", "60"]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_an_update_from_a_stick_needs_no_network(site: Site) -> None:
    bundle = site.bundle("1")
    folder = _stick(site, bundle)
    url, site.broker_url = site.broker_url, "mqtt://127.0.0.1:1"
    agent = site.agent()
    site.broker_url = url
    wait_until(lambda: "no model yet" in agent.log_text(), 20, "the agent did not start")
    done = _update(agent, folder)
    assert (done.returncode, done.stdout.strip()) == (0, "linear@1 serves"), done.stderr
    site.assert_serves(agent, bundle)
    (folder / "desired" / "dev-1.json").write_bytes(site.fleet.signed(_desired(site, bundle, 5, "dev-2"), catalogue={}))
    refused = _update(agent, folder)
    assert refused.returncode == 1 and "wrong-device" in refused.stderr
    empty = _update(agent, site.directory / "no-such-stick")
    assert empty.returncode == 1 and "holds no update" in empty.stderr and len(empty.stderr.splitlines()) == 1
    foreign = shutil.copytree(folder, site.directory / os.fsdecode(b"st\xefck"))
    unnamed = _update(agent, foreign)
    assert unnamed.returncode == 1 and "is not UTF-8" in unnamed.stderr and len(unnamed.stderr.splitlines()) == 1
    agent.stop()
    alone = _update(agent, folder)
    assert alone.returncode == 1 and "no agent is running" in alone.stderr


def test_metadata_and_bundles_come_over_https(site: Site) -> None:
    bundle, second = site.bundle("1"), site.bundle("2", seed=2)
    site.fleet.repository.add(bundle.reference)
    folder = write_repository(site.directory / "web", site.fleet.repository, bundle)
    with HttpsServer(folder, site.directory / "certificates") as server:
        agent = site.agent(repository_url=server.url, ca_file=server.ca_file)
        site.confirm(bundle)
        assert site.fleet.requests == [], "nothing was asked of the fleet"
        assert any("/metadata/timestamp.json" in path for path in server.paths)
        assert any("/objects/" in path for path in server.paths)
        # The mirror is behind: what it lacks comes from the fleet.
        site.confirm(second)
        assert site.fleet.requests
    site.assert_serves(agent, second)


def test_a_server_of_another_name_or_ca_is_not_believed(site: Site) -> None:
    bundle = site.bundle("1")
    site.fleet.repository.add(bundle.reference)
    folder = write_repository(site.directory / "web", site.fleet.repository, bundle)
    with (
        HttpsServer(folder, site.directory / "certificates") as server,
        HttpsServer(folder, site.directory / "others") as other,
    ):
        site.agent(repository_url=server.url, ca_file=other.ca_file)
        site.confirm(bundle)
        assert server.paths == [] and site.fleet.requests


@pytest.mark.parametrize("option", ["root", "ca_file"])
def test_a_file_of_trust_that_is_missing_ends_the_start_with_one_line(site: Site, option: str) -> None:
    options: dict[str, Any] = {option: site.directory / "nothing"}
    agent = site.agent(**options)
    assert agent.process.wait(20) == 1
    lines = agent.log_text().strip().splitlines()
    assert len(lines) == 1 and f"[trust] {option}" in lines[0] and "is no file" in lines[0]
