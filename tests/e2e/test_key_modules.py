"""A fleet all of whose online keys are in a PKCS#11 token, from `fleet init` to a device that serves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.agents import FLEET, AgentProcess, wait_until
from tests.fakes.brokers import Broker, available_kinds
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.softhsm import Token

PROGRAM = Path(sys.executable).with_name("autoglm-edge")
ROLES = ("targets", "snapshot", "timestamp", "director")


class TokenFleet:
    """A fleet's folder, its token, and the commands as an owner types them."""

    def __init__(self, directory: Path, broker_url: str) -> None:
        self.directory = directory / "fleet"
        self.token = Token(directory / "module", len(ROLES) + 1)
        keys = [part for n, role in enumerate(ROLES, start=1) for part in (f"--{role}-key", self.token.uri(n))]
        made = self.run("init", self.directory, "--name", FLEET, "--broker", broker_url, "--unencrypted", *keys)
        self.root, self.root_keys = Path(made["root"]), made["root_keys"]

    def ran(self, *arguments: str | Path, pin_file: Path | None = None) -> subprocess.CompletedProcess[str]:
        given = ["--pin-file", pin_file] if pin_file else []
        place = [] if arguments[0] == "init" else ["--fleet", self.directory]
        command = [str(part) for part in (PROGRAM, "fleet", *arguments, *place, *given, "--json")]
        return subprocess.run(command, capture_output=True, text=True, env=self.token.environment, check=False)

    def run(self, *arguments: str | Path) -> Any:
        """Run a command that signs, and must succeed."""
        done = self.ran(*arguments, pin_file=self.token.pin_file)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def asked(self, *arguments: str | Path) -> Any:
        """Run a command that needs no key, and must succeed."""
        done = self.ran(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def serve(self) -> subprocess.Popen[bytes]:
        command = [PROGRAM, "fleet", "serve", "--fleet", self.directory, "--pin-file", self.token.pin_file, "--quiet"]
        return subprocess.Popen([str(part) for part in command], env=self.token.environment)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Any: what is tried here does not reach it."""
    running = Broker(available_kinds()[0], tmp_path / "broker")
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_fleet_whose_keys_are_in_a_token(tmp_path: Path, broker: Broker) -> None:
    fleet = TokenFleet(tmp_path, broker.url)
    places = {key["role"]: key["place"] for key in fleet.asked("keys", "list")}
    assert [places[role] for role in ROLES] == [fleet.token.uri(number) for number in range(1, len(ROLES) + 1)]
    assert not list((fleet.directory / "keys").glob("*.pem")), "no private key of the fleet is in a file"
    first, second = (make_model_bundle(tmp_path / version, version=version, seed=int(version)) for version in "12")
    fleet.run("publish", first.directory)
    serving = fleet.serve()
    try:
        with AgentProcess(tmp_path / "agent", broker.url, root=fleet.root) as agent:
            wait_until(lambda: fleet.asked("devices"), 30, "the device was never heard of")
            assert _deployed(fleet, "linear@1", agent) == "confirmed"
            # The timestamp's key is replaced by another one of the token; devices learn of it by the new root.
            keys = [part for key in fleet.root_keys[:2] for part in ("--sign-with", key)]
            spare = fleet.token.uri(len(ROLES) + 1)
            fleet.run("keys", "rotate", "timestamp", "--new-key", spare, *keys)
            fleet.run("publish", second.directory)
            assert fleet.asked("repository", "verify")["bundles"] == 2
            assert _deployed(fleet, "linear@2", agent) == "confirmed"
    finally:
        serving.terminate()
        serving.wait(30)


def _deployed(fleet: TokenFleet, bundle: str, agent: AgentProcess) -> str:
    (ended,) = fleet.asked("deploy", bundle, "--to", agent.device, "--wait", "--timeout-s", "60")
    return str(ended["phase"])


def test_without_its_pin_a_token_does_not_sign_and_it_is_said(tmp_path: Path) -> None:
    fleet = TokenFleet(tmp_path, "mqtt://127.0.0.1:1")
    before = sorted((fleet.directory / "repository" / "metadata").iterdir())
    missing = fleet.ran("repository", "refresh", "--force")
    assert missing.returncode == 3 and "set AUTOGLM_EDGE_KEY_PIN or use --pin-file" in missing.stdout
    (tmp_path / "wrong").write_text("000000\n")
    wrong = fleet.ran("repository", "refresh", "--force", pin_file=tmp_path / "wrong")
    assert wrong.returncode == 3 and "does not sign" in wrong.stdout
    assert sorted((fleet.directory / "repository" / "metadata").iterdir()) == before
    assert fleet.run("repository", "refresh", "--force")["roles"] == ["snapshot", "timestamp"]
