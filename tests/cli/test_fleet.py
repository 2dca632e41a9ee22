"""The commands of the fleet, as a user and a script meet them: real processes, a real broker, a real device."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker
from tests.fakes.bundles import make_bundle
from tests.fleet.stand_in_device import StandInDevice
from typer.testing import CliRunner

from autoglm_edge.app import USER_ERRORS, build
from autoglm_edge_fleet.config import ENVIRONMENT
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_protocol.names import BundleId

PROGRAM = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "fleet"]


def run(*arguments: str | Path) -> str:
    """Run a command that must succeed, and return its standard output."""
    result = CliRunner().invoke(build(), ["fleet", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def error_of(*arguments: str | Path) -> str:
    """Run a command that must fail as a user's mistake does, and return its one line."""
    with pytest.raises(USER_ERRORS) as caught:
        CliRunner().invoke(build(), ["fleet", *map(str, arguments)], catch_exceptions=False)
    line = str(caught.value)
    assert line and "\n" not in line
    return line


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run("init", tmp_path / "fleet", "--name", "f", "--unencrypted")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "fleet"))
    return tmp_path / "fleet"


def test_publish_and_list(fleet: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", variants=("fp32", "int8"))
    assert "tiny@1.0.0 published" in run("publish", bundle)
    assert "was published before" in run("publish", bundle)
    again = json.loads(run("publish", bundle, "--json"))
    assert (again["id"], again["new"], again["new_bytes"]) == ("tiny@1.0.0", False, 0)
    assert re.search(r"tiny@1\.0\.0 .* fp32 int8", run("bundles"))
    listed = json.loads(run("bundles", "--json"))
    assert [(each["id"], each["variants"]) for each in listed] == [("tiny@1.0.0", ["fp32", "int8"])]


def test_deploying_before_any_device_was_seen(fleet: Path, tmp_path: Path) -> None:
    run("publish", make_bundle(tmp_path / "bundle"))
    assert "wanted on 1 device" in run("deploy", "tiny@1.0.0", "--to", "dev1", "--create")
    status = json.loads(run("status", "--json"))
    assert [(each["name"], each["deployment"]["phase"], each["telemetry"]) for each in status] == [
        ("dev1", "queued", None)
    ]
    assert "queued" in run("status") and "never" in run("devices")
    assert "command" in run("command", "dev1", "ping", "text=hello")


def test_a_fleet_is_found_by_option_environment_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: Path
) -> None:
    run("init", tmp_path / "other", "--unencrypted")
    run("publish", make_bundle(tmp_path / "bundle"), "--fleet", tmp_path / "other")
    assert json.loads(run("bundles", "--json")) == []
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.chdir(tmp_path / "other")
    assert len(json.loads(run("bundles", "--json"))) == 1


def test_errors_say_what_to_do(fleet: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    run("publish", bundle)
    run("deploy", "tiny@1.0.0", "--to", "dev1", "--create")
    tampered = make_bundle(tmp_path / "tampered", version="2.0.0")
    (tampered / "labels.txt").write_bytes(b"zero\ntwo\n")
    truncated = tmp_path / "truncated.bundle"
    truncated.write_bytes(b"\0" * 100)
    empty = tmp_path / "empty"
    empty.mkdir()
    table: list[tuple[tuple[str | Path, ...], str]] = [
        (("bundles", "--fleet", empty), "fleet init"),
        (("serve", "--fleet", empty), "fleet init"),
        (("init", fleet, "--unencrypted"), "holds a fleet already"),
        (("init", tmp_path / "new", "--name", "not a name", "--unencrypted"), "give --name"),
        (("init", tmp_path / "new", "--broker", "http://here", "--unencrypted"), "mqtt://HOST:PORT"),
        (("publish", tmp_path / "missing"), "does not exist"),
        (("publish", empty), "no manifest.json"),
        (("publish", truncated), "is not a packed bundle"),
        (("publish", tampered), "labels.txt: SHA-256 is"),
        (("publish", make_bundle(tmp_path / "other", seed=9)), "raise its version"),
        (("deploy", "tiny@9.9.9", "--to", "dev1"), "published: tiny@1.0.0"),
        (("deploy", "tiny", "--to", "dev1"), "NAME@VERSION"),
        (("deploy", "tiny@1.0.0", "--to", "dev2"), "known: dev1"),
        (("deploy", "tiny@1.0.0", "--to", "dev1", "--variant", "int4"), "it has: fp32"),
        (("deploy", "tiny@1.0.0", "--to", "no name", "--create"), "A-Z a-z 0-9 _ -"),
        (("command", "dev2", "ping"), "known: dev1"),
        (("command", "dev1", "Not A Name"), "not a valid command"),
    ]
    for arguments, expected in table:
        assert expected in error_of(*arguments), arguments
    (fleet / "fleet.toml").write_text("name = 3\n[broker]\n")
    assert "is missing or no text" in error_of("bundles")
    (fleet / "fleet.toml").write_text('name = "f"\nbroker = "mqtt://host"\n')
    assert "write [broker]" in error_of("bundles")
    (fleet / "fleet.toml").write_text('name = "f"\n[broker]\nurl = "mqtt://host"\nname = "g"\n')
    assert "is no setting" in error_of("bundles")
    (fleet / "fleet.toml").write_text("name = \n")
    assert "cannot be read" in error_of("bundles")


def test_nobody_to_deploy_to(fleet: Path, tmp_path: Path) -> None:
    run("publish", make_bundle(tmp_path / "bundle"))
    assert "none is known yet" in error_of("deploy", "tiny@1.0.0", "--to", "all")


def test_a_users_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run([*PROGRAM, "bundles", "--fleet", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("autoglm-edge: no fleet in") and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["models[old]", "models[/old]", "a[red]b"])
def test_square_brackets_are_no_markup(tmp_path: Path, name: str) -> None:
    line = [*PROGRAM, "bundles", "--fleet", str(tmp_path / name)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"no fleet in {tmp_path / name}:" in done.stderr
    assert f"made in {tmp_path / name}," in run("init", tmp_path / name, "--name", "f", "--unencrypted").replace(
        "\n", ""
    )


class Daemon:
    """`autoglm-edge fleet serve` as a process, and what it prints."""

    def __init__(self, fleet: Path) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        arguments = [*PROGRAM, "serve", "--fleet", str(fleet)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)

    def until(self, text: str) -> str:
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line.decode()
            if text in seen:
                return seen
        raise AssertionError(f"{text!r} never came:\n{seen}")

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def served(fleet: Path, broker: Broker) -> Iterator[Path]:
    (fleet / "fleet.toml").write_text(f'name = "f"\n[broker]\nurl = "{broker.url}"\n')
    daemon = Daemon(fleet)
    daemon.until("connected to")
    yield fleet
    assert daemon.stop(signal.SIGTERM) == 0


async def cli(*arguments: str) -> tuple[int, str]:
    """Run a command as a process of its own, while a device goes on."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_deploy_and_command_from_end_to_end(served: Path, broker: Broker, tmp_path: Path) -> None:
    with Fleet.open(served) as fleet:
        fleet.publish(make_bundle(tmp_path / "bundle"))
        async with StandInDevice(broker.url, "f", "dev1", root=fleet.trust.root_path.read_bytes()):
            while not fleet.device_names():
                await asyncio.sleep(0.02)
            code, output = await cli("deploy", "tiny@1.0.0", "--to", "all", "--wait", "--timeout-s", "30")
            assert (code, "dev1: tiny@1.0.0 (generation 1) confirmed" in output) == (0, True), output
            code, output = await cli("command", "dev1", "ping", "text=hello", "--wait")
            assert (code, "dev1: succeeded" in output, "echo=hello" in output) == (0, True, True), output
            code, output = await cli("command", "dev1", "ping", "text=hello", "--wait", "--json")
            answer = json.loads(output)["answer"]
            assert (code, answer["outcome"], answer["result"]["echo"]) == (0, "succeeded", "hello"), output
            code, output = await cli("deploy", "tiny@1.0.0", "--to", "dev1", "--wait", "--json")
            ended = json.loads(output)
            assert (code, [(each["device"], each["phase"], each["generation"]) for each in ended]) == (
                0,
                [("dev1", "confirmed", 2)],
            )
            code, output = await cli("command", "dev1", "fly", "--wait")
            assert (code, "unknown-command" in output) == (1, True), output
            code, output = await cli("devices")
            assert (code, re.search(r"dev1\s+yes\s+tiny@1\.0\.0\s+fp32\s+confirmed", output) is not None) == (0, True)
            for path in (served / "repository" / "objects").rglob("*"):
                if path.is_file():
                    path.unlink()
            fleet.publish(make_bundle(tmp_path / "next", version="1.1.0"))
            for path in (served / "repository" / "objects").rglob("*"):
                if path.is_file():
                    path.unlink()
            code, output = await cli("deploy", "tiny@1.1.0", "--to", "dev1", "--wait", "--timeout-s", "30")
            assert (code, "failed: the repository has lost this file" in output) == (1, True), output


async def test_kill_9_of_the_daemon_delays_a_deployment_and_no_more(
    fleet: Path, broker: Broker, tmp_path: Path
) -> None:
    (fleet / "fleet.toml").write_text(f'name = "f"\n[broker]\nurl = "{broker.url}"\n')
    source, interrupted = random.Random(0), 0
    with Fleet.open(fleet) as opened:
        opened.publish(make_bundle(tmp_path / "bundle", payload_bytes=40_000_000))
        issued = opened.deploy(BundleId.parse("tiny@1.0.0"), ["dev1"], create=True)
        async with StandInDevice(broker.url, "f", "dev1", root=opened.trust.root_path.read_bytes()) as device:
            for _ in range(3):
                daemon, before = Daemon(fleet), device.received_blocks
                await asyncio.to_thread(daemon.until, "connected to")
                async with asyncio.timeout(20):
                    while device.received_blocks == before and not opened.refresh(issued)[0].ended:
                        await asyncio.sleep(0.005)
                await asyncio.sleep(source.uniform(0, 0.05))
                daemon.stop(signal.SIGKILL)
                interrupted += not opened.refresh(issued)[0].ended
            assert interrupted >= 2
            daemon = Daemon(fleet)
            await asyncio.to_thread(daemon.until, "connected to")
            async with asyncio.timeout(30):
                while not opened.refresh(issued)[0].succeeded:
                    await asyncio.sleep(0.02)
            assert daemon.stop(signal.SIGTERM) == 0


def test_serve_keeps_trying_without_a_broker_and_says_so(fleet: Path) -> None:
    (fleet / "fleet.toml").write_text('name = "f"\n[broker]\nurl = "mqtt://127.0.0.1:1"\n')
    daemon = Daemon(fleet)
    said = daemon.until("trying again")
    assert "no connection to mqtt://127.0.0.1:1" in said and "Traceback" not in said
    assert daemon.stop(signal.SIGINT) == 130
