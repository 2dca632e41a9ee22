"""A real device and a fleet that is nothing but mosquitto_pub, mosquitto_sub, openssl and a shell.

The fleet's side is what docs/other-clients.md tells people to type, so that page is tested with it. Python only starts
processes and reads what they print.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.brokers import Broker
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_protocol.bundle import pack

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "other-clients.md").read_text(encoding="utf-8")
SETTINGS, FOUND, SERVE, DEPLOY, COMMAND = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NEEDED = ("mosquitto", "mosquitto_pub", "mosquitto_sub", "openssl")
TIMEOUT_S = 60


@dataclass(frozen=True)
class Heard:
    """A message that mosquitto_sub has printed."""

    qos: int
    retained: bool
    topic: str
    payload: bytes

    @property
    def level(self) -> str:
        return self.topic.rpartition("/")[2]


class Shell:
    """A person at a terminal who types what the page says, with another port of the broker."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self._settings = SETTINGS.replace("localhost", "127.0.0.1").replace("1883", str(port))
        assert str(port) in self._settings
        self._listeners = itertools.count()
        (directory / "examples").symlink_to(ROOT / "examples")

    def run(self, commands: str) -> str:
        """Run commands and return what they print. Raises CalledProcessError when one fails."""
        result = self._start(commands, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, problems = result.communicate(timeout=TIMEOUT_S)
        finally:
            _end(result)
        print(output + problems)
        if result.returncode != 0:
            raise subprocess.CalledProcessError(result.returncode, commands, output, problems)
        return str(output)

    @contextmanager
    def running(self, commands: str) -> Iterator[Path]:
        """Run commands until the context ends; gives the file that has what they print."""
        output = self.directory / "served.txt"
        with output.open("wb") as file:
            process = self._start(f"exec {commands}", stdout=file, stderr=subprocess.STDOUT)
        try:
            yield output
        finally:
            _end(process)
            print(output.read_text())

    def listen(self, topic: str, count: int, pause_s: int = 10) -> Callable[[], list[Heard]]:
        """Subscribe, and return once the broker has granted it.

        What is returned waits for so many messages, or until nothing has come for some seconds, and gives them.
        """
        options = f"-q 1 -t '{topic}' -C {count} -W {pause_s} -F 'heard %q %r %t %x'"
        output = self.directory / f"heard-{next(self._listeners)}.txt"
        with output.open("wb") as file:
            listening = self._start(
                f"exec stdbuf -oL mosquitto_sub -h $BROKER_HOST -p $BROKER_PORT -d {options}", stdout=file
            )
        wait_until(lambda: "Subscribed" in output.read_text(), 10, f"no subscription to {topic}")

        def heard() -> list[Heard]:
            listening.wait(TIMEOUT_S)
            words = [line.split() for line in output.read_text().splitlines()]
            return [
                Heard(int(line[1]), line[2] == "1", line[3], bytes.fromhex(line[4]))
                for line in words
                if line[:1] == ["heard"]
            ]

        return heard

    def _start(self, commands: str, **files: Any) -> subprocess.Popen[Any]:
        script = f"set -eu\n{self._settings}{commands}"
        return subprocess.Popen(
            ["sh", "-c", script],
            cwd=self.directory,
            env=_environment(),
            text=True,
            start_new_session=True,
            **files,
        )


def _end(process: subprocess.Popen[Any]) -> None:
    """End a shell and what it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(10)


def _environment() -> dict[str, str]:
    """Return an environment in which no command of ours can be found by its name."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/opt/homebrew/bin", "HOME": os.environ.get("HOME", "/")}


@pytest.fixture(scope="module")
def _programs() -> None:
    missing = [program for program in NEEDED if not shutil.which(program, path=_environment()["PATH"])]
    assert not missing, f"{', '.join(missing)} missing: sudo apt install mosquitto mosquitto-clients openssl"


@pytest.fixture
def mosquitto(_programs: None, tmp_path: Path) -> Iterator[Broker]:
    broker = Broker("mosquitto", tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def shell(mosquitto: Broker, tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, mosquitto.port)
    shell.run(FOUND)
    return shell


@pytest.fixture
def device(mosquitto: Broker, shell: Shell, tmp_path: Path) -> Iterator[AgentProcess]:
    root = tmp_path / "shell-fleet" / "metadata" / "1.root.json"
    with AgentProcess(tmp_path / "agent", mosquitto.url, "porch", fleet="home", root=root) as agent:
        yield agent


@pytest.fixture
def bundle(tmp_path: Path) -> None:
    made = make_model_bundle(tmp_path / "unpacked", "digits", width=50_000)  # almost four megabytes in some 65 blocks
    (tmp_path / "bundles").mkdir()
    pack(made.directory, tmp_path / "bundles" / "digits-1.0.0.bundle")


@pytest.mark.slow
@pytest.mark.usefixtures("bundle")
def test_the_page_deploys_and_commands(shell: Shell, device: AgentProcess) -> None:
    with shell.running(SERVE) as served:
        lines = shell.run(DEPLOY).splitlines()
        assert lines[:2] == ["signed: version 1 of the metadata", "generation 1: porch is to run digits 1.0.0"]
        progress = [re.fullmatch(r"generation 1: ([a-z-]+), (\d+) of (\d+) bytes fetched", line) for line in lines[2:]]
        steps = [(match[1], int(match[2]), int(match[3])) for match in progress if match]
        assert len(steps) == len(lines) - 2
        assert any(phase == "fetching" and 0 < fetched < total for phase, fetched, total in steps)
        assert steps[-1][0] == "confirmed"
        assert steps[-1][1] == steps[-1][2] > 3_500_000
        device.wait_serving()
        assert device.request("GET", "/v2/models/digits")["versions"] == ["1.0.0"]

        answer = json.loads(shell.run(COMMAND))
        assert (answer["outcome"], answer["reason"]) == ("succeeded", None)
        assert set(answer["result"]) == {"agent", "time"}
    assert "could not be answered" not in served.read_text()

    kept = [message for message in shell.listen("autoglm/v1/home/porch/#", 10, pause_s=3)() if message.retained]
    assert sorted((message.level, message.qos) for message in kept) == [
        ("desired", 1),
        ("presence", 1),
        ("reported", 1),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("bundle")
def test_what_another_key_has_signed_is_refused(shell: Shell, device: AgentProcess) -> None:
    with shell.running(SERVE):
        shell.run(DEPLOY)
        shell.run("openssl genpkey -algorithm ed25519 -out shell-fleet/keys/director.pem")
        shell.run("examples/shell_fleet/deploy.sh digits 1.0.0")
        report = wait_until(lambda: _refusing(shell), 30, "no refusal was ever reported")
    assert report["deployment"]["generation"] == 1
    assert report["trust"]["refusal"]["code"] == "untrusted-signature"
    assert "untrusted-signature" in device.log_text()


def _refusing(shell: Shell) -> Any:
    report = json.loads(shell.listen("autoglm/v1/home/porch/reported", 1)()[0].payload)
    return report if report["trust"]["refusal"] else None


def test_the_blocks_that_a_request_names_are_sent(shell: Shell, tmp_path: Path) -> None:
    data = os.urandom(2500)
    objects = tmp_path / "shell-fleet" / "objects"
    digest, absent = "ab" * 32, "cd" * 32
    (objects / digest).write_bytes(data)

    def publish(request: str) -> None:
        shell.run(f"mosquitto_pub -h $BROKER_HOST -p $BROKER_PORT -t autoglm/v1/home/porch/fetch -m '{request}'")

    def ask(sha256: str, block_bytes: int, ranges: list[list[int]]) -> None:
        request = {"encodings": [], "request_id": 7, "sha256": sha256, "block_bytes": block_bytes, "ranges": ranges}
        publish(json.dumps(request))

    def answers(channel: str, count: int, *request: Any) -> list[Heard]:
        heard = shell.listen(f"autoglm/v1/home/porch/{channel}", count)
        ask(*request)
        return heard()

    def answered() -> bool:
        ask(absent, 512, [[0, 1]])
        return served.stat().st_size > 0

    with shell.running(SERVE) as served:
        # A request that nobody was there to hear is lost, as every request may be: it is made again.
        wait_until(answered, 20, "serve.sh never answered", 0.5)
        publish(f'{{"request_id":1,"sha256":"{digest}","block_bytes":1000,"ranges":[[09,1]]}}')  # ends no server
        publish(f'{{"request_id":1,"sha256":"../objects/{digest}","block_bytes":1000,"ranges":[[0,1]]}}')
        sent = answers("block/+/+", 2, digest, 1000, [[0, 1], [2, 1]])
        assert [(block.level, block.payload) for block in sent] == [("0", data[:1000]), ("2000", data[2000:])]
        refusals = [answers("refusal", 1, absent, 512, [[0, 1]]), answers("refusal", 1, digest, 512, [[4, 2]])]
        codes = [json.loads(only.payload)["reason"]["code"] for (only,) in refusals]
        assert codes == ["not-found", "out-of-range"]
