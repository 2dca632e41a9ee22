"""The package and its units on a system that really boots: from a claim on the card to an uninstalled package."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.boards import service_roots
from tests.boards.abilities import why_no_roots, why_not
from tests.boards.containers import Container
from tests.boards.memory_groups import MemoryGroup
from tests.boards.processors import PI_4_64
from tests.fakes.agents import wait_until
from tests.fakes.boards import PI_4, PI_5_HAILO, write_board
from tests.fakes.brokers import Broker
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
from tests.fakes.ports import free_port

from autoglm_edge_firmware.package.build import write_installer
from autoglm_edge_fleet.enrolment.claims import ClaimTerms
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.names import BundleId

UNIT = "autoglm-edge-agent.service"
SOCKETS = "autoglm-edge-agent.socket"
ENROL = "autoglm-edge-enrol.service"
TIMER = "autoglm-edge-enrol.timer"
DEVICES = "autoglm-edge-devices.service"
DENIED = "3"
SOON = "[Timer]\nOnUnitInactiveSec=1s\nAccuracySec=1s\nRandomizedDelaySec=0\n"
"""For the timer, whose hour is too long for a test."""
OTHER_BOARD = f"""[Service]
ExecStart=
ExecStart=/usr/bin/python3 -s -m autoglm_edge_agent.systemd.open_devices --root /other \\
  /run/systemd/system/{UNIT}.d
"""
"""Looks for accelerators where the test can plug them in."""
INPUT = np.random.default_rng(0).standard_normal((2, 64), dtype=np.float32)
WATCHDOG_S = 10
BODY = json.dumps({"inputs": [{"name": "x", "shape": [2, 64], "datatype": "FP32", "data": INPUT.tolist()}]})
SOCKET = "run/autoglm-edge/inference.sock"
TRANSLATED = """[Service]
PrivateNetwork=no
PrivateIPC=no
PrivateUsers=no
"""
"""What qemu cannot translate for systemd, beside filters of system calls. The kernel of a board does all of it."""
CPU = "sys/devices/system/cpu"
TRANSLATED_AGENT = f"""{TRANSLATED}
Environment=QEMU_CPU=cortex-a72
BindReadOnlyPaths=/board/proc/cpuinfo:/proc/cpuinfo /board/{CPU}:/{CPU}
"""
"""The processor of a Pi 4: runtimes crash on an ARM processor of which the files tell that it is this machine's."""
TRANSLATED_ENROL = f"""{TRANSLATED}
LoadCredential=
ExecStartPre=+/bin/chown autoglm-edge /etc/autoglm-edge/claim.json
ExecStart=
ExecStart=/usr/bin/autoglm-edge-agent enrol --claim /etc/autoglm-edge/claim.json \\
  --identity /var/lib/autoglm-edge/identity
"""
CLIENT = f"""
import http.client, socket
connection = http.client.HTTPConnection("device")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/{SOCKET}")
connection.request("GET", "/v2/health/ready")
print(connection.getresponse().status)
"""


@pytest.fixture(params=["amd64", pytest.param("arm64", marks=pytest.mark.long)])
def architecture(request: pytest.FixtureRequest) -> str:
    reason = why_no_roots("systemd-nspawn", "dpkg-deb")
    if request.param == "arm64":
        reason = reason or why_not("qemu-aarch64")
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def fleet_side(broker: Broker, tmp_path: Path) -> Iterator[FleetProcess]:
    with FleetProcess(tmp_path / "fleet", broker.url) as process:
        yield process


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder for a root and packages: too much to be kept as pytest keeps its own."""
    with tempfile.TemporaryDirectory(prefix="service-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Board:
    """An installed board and the fleet that it belongs to."""

    def __init__(self, fleet_side: FleetProcess, root: Path, container: Container, port: int) -> None:
        self.fleet = fleet_side.fleet
        self.root = root
        self.container = container
        self.port = port
        self.device = ""

    def main_pid(self) -> int:
        return int(self.container.shown(UNIT, "MainPID")[0])

    def worker(self) -> int:
        """Number, in the container, of the worker that serves."""
        children = self.container.run("cat", f"/proc/{self.main_pid()}/task/{self.main_pid()}/children").split()
        (worker,) = [pid for pid in children if "inference.worker" in self.command_of(pid)]
        return int(worker)

    def command_of(self, pid: str) -> str:
        return self.container.run("cat", f"/proc/{pid}/cmdline", check=False)

    def status_of(self, pid: int) -> dict[str, str]:
        lines = self.container.run("cat", f"/proc/{pid}/status").splitlines()
        return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}

    def deploy(self, bundle: ModelBundle) -> None:
        self.fleet.publish(bundle.directory)
        reference = bundle.reference
        deployments = self.fleet.deploy(BundleId(name=reference.name, version=reference.version), [self.device])
        (ended,) = self.fleet.wait_for_deployments(deployments, timeout_s=180)
        assert ended.phase == "confirmed", ended

    def answer(self, connection: http.client.HTTPConnection) -> tuple[str, np.ndarray]:
        """Ask once over a connection, and close it."""
        with contextlib.closing(connection):
            connection.request("POST", "/v2/models/linear/infer", BODY)
            response = connection.getresponse()
            said = json.loads(response.read())
        assert response.status == 200, said
        y = np.array(said["outputs"][0]["data"], np.float32).reshape(said["outputs"][0]["shape"])
        return str(said["model_version"]), y

    def assert_serves(self, bundle: ModelBundle, timeout_s: float = 180) -> None:
        def serves() -> bool:
            try:
                version, y = self.answer(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30))
            except (OSError, http.client.HTTPException):
                return False
            assert version == bundle.reference.version
            np.testing.assert_allclose(y, bundle.expected(INPUT), rtol=1e-4, atol=1e-5)
            return True

        wait_until(serves, timeout_s, "the device does not serve")

    def unix(self) -> http.client.HTTPConnection:
        """A connection to the socket for local clients, from outside of the container."""
        connection = http.client.HTTPConnection("device", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        try:
            connection.sock.connect(f"/proc/{self.container.init}/root/{SOCKET}")
        except OSError:
            connection.close()
            raise
        return connection


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.one_broker
def test_the_life_of_the_service(
    fleet_side: FleetProcess, broker: Broker, architecture: str, own_folder: Path, tmp_path: Path
) -> None:
    began, translated = time.monotonic(), architecture == "arm64"

    def passed(what: str) -> None:
        print(f"{architecture} {time.monotonic() - began:6.1f} s {what}")

    root = service_roots.copy_root(service_roots.base_root(architecture), own_folder / "root")
    package = service_roots.built(architecture, own_folder / "packages")
    passed("root and package are made")
    service_roots.install(package, root)
    passed("installed")
    port = free_port()
    _configure(root, port, translated=translated)
    fleet_side.fleet.enrolment.found(plain=True)
    revoked, claim = fleet_side.fleet.enrolment.create_claims(2, ClaimTerms(3600, {}), name_prefix="board")
    fleet_side.fleet.enrolment.revoke_claim(revoked.claim_id)
    _put_on_card(root, revoked)
    bundle = make_model_bundle(tmp_path / "bundle-1", version="1")
    with ExitStack() as stack:
        memory = stack.enter_context(MemoryGroup()) if not translated and MemoryGroup.can_be_made() else None
        container = stack.enter_context(Container(root, memory.wrapper if memory else ()))
        passed("booted")
        board = Board(fleet_side, root, container, port)
        _is_refused(board)
        passed("refused, and the timer runs")
        _put_on_card(root, claim)
        with _changed(container, TIMER, SOON):
            _enrols(board)
        passed("enrolled, and the agent is active")
        board.deploy(bundle)
        board.assert_serves(bundle)
        passed("a bundle is confirmed and answers")
        _is_confined(board, translated=translated)
        _lets_its_clients_in(board)
        if not translated:  # two starts of the agent, which tell nothing of a processor
            _binds_its_sockets_itself_where_their_unit_is_masked(board, bundle)
            passed("its sockets are its own, and systemd's again")
        _is_told_of_new_devices_alone(board)
        passed("an accelerator was plugged in and out")
        _survives_its_worker(board, bundle)
        if memory is not None:
            _survives_want_of_memory(board, bundle, memory)
            passed("the kernel has ended its worker for want of memory, and it serves again")
        _is_restarted_when_it_hangs(board, bundle)
        passed("restarted by the watchdog, and serves again")
        _is_upgraded_in_place(board, bundle, service_roots.newer(package, own_folder))
        passed("upgraded, and serves")
        _is_removed(board)
        passed("removed and purged")


def _configure(root: Path, port: int, *, translated: bool) -> None:
    with (root / "etc/autoglm-edge/agent.toml").open("a") as config:
        config.write(f'\n[inference]\nhttp = "127.0.0.1:{port}"\n[inference.probe]\n')
        # Each way to run is tried in a process of its own: seconds here, minutes where qemu translates.
        config.write("enabled = false\n" if translated else "seconds = 0.05\n")
        config.write("[probation]\nmax_duration_s = 0\n")
    _set(root, UNIT, "test", f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
    if translated:
        write_board(PI_4_64, root / "board")
        for name in ("claim", "devices"):
            _set(root, f"autoglm-edge-{name}.service", "translated", TRANSLATED)
        _set(root, UNIT, "translated", TRANSLATED_AGENT)
        _set(root, ENROL, "translated", TRANSLATED_ENROL)
        # It makes the folder of the sockets, among others, and has credentials that it does not need.
        _set(root, "systemd-tmpfiles-setup.service", "translated", "[Service]\nLoadCredential=\n")


def _put_on_card(root: Path, claim: Claim) -> None:
    path = root / "boot/firmware/autoglm-edge/claim.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(claim.to_text())


@contextlib.contextmanager
def _changed(container: Container, unit: str, text: str) -> Iterator[None]:
    """Change a unit of a board that is on, for a while."""
    path = _set(container.root, unit, "for-a-while", text)
    container.run("systemctl", "daemon-reload")
    yield
    path.unlink()
    container.run("systemctl", "daemon-reload")


def _set(root: Path, unit: str, name: str, text: str) -> Path:
    path = root / f"etc/systemd/system/{unit}.d/{name}.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _is_refused(board: Board) -> None:
    """A claim that the fleet will never take is not tried again and again, but looked at once an hour."""
    container = board.container
    failed = lambda: container.shown(ENROL, "ActiveState") == ["failed"]  # noqa: E731
    wait_until(failed, 120, "the revoked claim is not refused")
    assert container.shown(ENROL, "ExecMainStatus", "NRestarts") == [DENIED, "0"]
    assert "the claim was revoked" in container.run("journalctl", "--no-pager", "-u", ENROL)
    assert container.shown(UNIT, "ActiveState") == ["inactive"]
    assert container.shown(TIMER, "ActiveState", "SubState") == ["active", "waiting"]
    assert "{ OnUnitInactiveUSec=1h ;" in container.run("systemctl", "show", TIMER, "--property=TimersMonotonic")


def _enrols(board: Board) -> None:
    """The unit of the first boot takes the claim from the card, enrols, and starts the agent."""
    container = board.container

    def online() -> str | None:
        devices = board.fleet.devices()
        return devices[0].name if devices and devices[0].online else None

    board.device = wait_until(online, 240, "the board never becomes a device")
    assert board.device.startswith("board-")
    wait_until(lambda: container.shown(UNIT, "ActiveState") == ["active"], 120, "the agent is not ready")
    assert container.shown(ENROL, "Result", "ActiveState") == ["success", "inactive"]
    assert "no model yet" in container.shown(UNIT, "StatusText")[0]
    for folder in ("boot/firmware/autoglm-edge", "etc/autoglm-edge"):
        assert not (board.root / folder / "claim.json").exists()
    key = board.root / "var/lib/autoglm-edge/identity/device.key"
    assert key.stat().st_mode & 0o777 == 0o600


def _is_confined(board: Board, *, translated: bool) -> None:
    """What has just answered ran with the unit's confinement, and would be ended before the agent."""
    agent, worker = board.main_pid(), board.worker()
    for pid in (agent, worker):
        status = board.status_of(pid)
        assert (status["NoNewPrivs"], int(status["CapEff"], 16)) == ("1", 0)
        # The container has filters of its own, which its first process shows.
        assert translated or int(status["Seccomp_filters"]) > int(board.status_of(1)["Seccomp_filters"])
        assert status["Uid"].split()[0] != "0"
    assert int(board.container.run("cat", f"/proc/{worker}/oom_score_adj")) == 500
    high, most, policy = board.container.shown(UNIT, "MemoryHigh", "MemoryMax", "OOMPolicy")
    assert int(high) < int(most)
    assert policy == "continue"


def _lets_its_clients_in(board: Board) -> None:
    def ask(group: str) -> str:
        nobody = ("setpriv", "--reuid=nobody", f"--regid={group}", "--clear-groups")
        return board.container.run(*nobody, "python3", "-c", CLIENT, check=False).strip()

    assert ask("autoglm-edge-clients") == "200"
    assert ask("nogroup") == ""
    version, _ = board.answer(board.unix())
    assert version == "1"


def _binds_its_sockets_itself_where_their_unit_is_masked(board: Board, bundle: ModelBundle) -> None:
    systemctl = partial(board.container.run, "systemctl")
    systemctl("mask", "--now", SOCKETS)
    systemctl("restart", UNIT)
    board.assert_serves(bundle)
    _lets_its_clients_in(board)
    systemctl("stop", UNIT)
    systemctl("unmask", SOCKETS)
    systemctl("start", UNIT)
    assert board.container.shown(SOCKETS, "ActiveState", "SubState") == ["active", "running"]
    board.assert_serves(bundle)


def _is_told_of_new_devices_alone(board: Board) -> None:
    """systemd reads all units again, which takes seconds on a small board, only where other accelerators are found."""
    container = board.container
    other = board.root / "other"
    write_board(PI_4, other)

    def found() -> tuple[int, bool]:
        """Return how often units were read, and whether the agent may open a Hailo."""
        before = _times_read(container)
        container.run("systemctl", "restart", DEVICES)
        (drop_ins,) = container.shown(UNIT, "DropInPaths")
        return _times_read(container) - before, "50-autoglm-edge-hailo.conf" in drop_ins

    with _changed(container, DEVICES, OTHER_BOARD):
        assert found() == (0, False)
        write_board(PI_5_HAILO, other)
        assert found() == (1, True)
        assert found() == (0, True)
        shutil.rmtree(other)
        assert found() == (1, False)


def _times_read(container: Container) -> int:
    container.run("journalctl", "--sync")
    return container.run("journalctl", "--no-pager", "--output=cat", "_PID=1").count("Reloading")


def _survives_its_worker(board: Board, bundle: ModelBundle) -> None:
    agent, worker = board.main_pid(), board.worker()
    board.container.run("sh", "-c", f"kill -KILL {worker}")
    wait_until(lambda: board.command_of(str(worker)) == "", 30, "the worker does not end")
    board.assert_serves(bundle)
    assert board.main_pid() == agent
    assert board.container.shown(UNIT, "NRestarts") == ["0"]


def _survives_want_of_memory(board: Board, bundle: ModelBundle, memory: MemoryGroup) -> None:
    """A question that takes more memory than there is costs its worker, not the agent and not the board."""
    agent, worker = board.main_pid(), board.worker()
    rows = np.zeros((40_000, 64), np.float32).tolist()
    body = json.dumps({"inputs": [{"name": "x", "shape": [40_000, 64], "datatype": "FP32", "data": rows}]})
    with memory.only(16 << 20):
        connection = http.client.HTTPConnection("127.0.0.1", board.port, timeout=60)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/v2/models/linear/infer", body)
            connection.getresponse().read()
        wait_until(lambda: memory.kills() > 0, 60, "the kernel ends nobody")
    board.assert_serves(bundle)
    assert board.main_pid() == agent
    assert board.worker() != worker
    assert board.container.shown(UNIT, "NRestarts", "ActiveState") == ["0", "active"]


def _is_restarted_when_it_hangs(board: Board, bundle: ModelBundle) -> None:
    agent = board.main_pid()
    board.container.run("sh", "-c", f"kill -STOP {agent}")
    restarted = lambda: board.container.shown(UNIT, "NRestarts", "ActiveState") == ["1", "active"]  # noqa: E731
    wait_until(restarted, 120, "systemd does not notice that the agent hangs", pause_s=0.5)
    assert board.main_pid() != agent
    assert "Watchdog timeout" in board.container.run("journalctl", "--no-pager", "-u", UNIT)
    board.assert_serves(bundle)
    wait_until(lambda: "linear@1" in board.container.shown(UNIT, "StatusText")[0], 30, "the status does not tell")


def _is_upgraded_in_place(board: Board, bundle: ModelBundle, package: Path) -> None:
    """While the package is replaced nobody who connects is refused, and every answer is right."""
    agent = board.main_pid()
    slots = (board.root / "var/lib/autoglm-edge/slots.json").read_bytes()
    stick = board.root / "root/stick"
    (stick / "claims").mkdir(parents=True)
    (stick / package.name).write_bytes(package.read_bytes())
    (stick / "claims/one.json").write_text("{}")
    write_installer(stick)
    ended, failures, waits = threading.Event(), [], []

    def ask() -> None:
        while not ended.is_set():
            start = time.monotonic()
            try:
                _, y = board.answer(board.unix())
                np.testing.assert_allclose(y, bundle.expected(INPUT), rtol=1e-4, atol=1e-5)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failures.append(repr(error))
            waits.append(time.monotonic() - start)
            time.sleep(0.05)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        said = board.container.run("sh", "/root/stick/install.sh", timeout_s=600)
        wait_until(lambda: board.container.shown(UNIT, "ActiveState") == ["active"], 180, "the agent is not ready")
        board.assert_serves(bundle)
    finally:
        ended.set()
        asker.join()
    print(f"while it was upgraded: {len(waits)} questions, the longest wait {max(waits):.1f} s")
    assert failures == []
    assert "autoglm-edge-agent 0.1.0-2 is installed\n" in said
    assert "this board is a device already" in said
    assert (stick / "claims/one.json").exists()
    assert board.main_pid() != agent
    assert board.container.run("dpkg-query", "-W", "-f=${Version}", "autoglm-edge-agent") == "0.1.0-2"
    assert (board.root / "var/lib/autoglm-edge/slots.json").read_bytes() == slots
    upgraded = board.main_pid()
    assert "0.1.0-2 is installed already" in board.container.run("sh", "/root/stick/install.sh")
    assert board.main_pid() == upgraded
    board.container.run("mv", f"/root/stick/{package.name}", f"/root/{package.name}")
    board.container.run("cp", f"/root/{package.name.replace('-2_', '-1_')}", "/root/stick/")
    refused = board.container.run("sh", "-c", "sh /root/stick/install.sh 2>&1; echo $?").splitlines()
    assert refused == [
        "install.sh: autoglm-edge-agent 0.1.0-2 is installed, newer than 0.1.0-1 here; remove it first to go back",
        "1",
    ]


def _is_removed(board: Board) -> None:
    container = board.container
    container.run("sh", "/root/stick/install.sh", "--remove")
    assert container.shown(UNIT, "ActiveState") == ["inactive"]
    assert not (board.root / "opt/autoglm-edge").exists()
    assert (board.root / "var/lib/autoglm-edge/identity/identity.json").exists()
    container.run("sh", "/root/stick/install.sh", "--purge")
    assert "is not installed" in container.run("sh", "/root/stick/install.sh", "--purge")
    found = subprocess.run(
        ["find", str(board.root), "-xdev", "-name", "*autoglm*", "-not", "-path", "*/root/root/*"],
        capture_output=True,
        text=True,
        check=True,
    )
    left = [path for path in found.stdout.splitlines() if not path.startswith(f"{board.root}/etc/systemd/system/")]
    assert left == []
    assert "autoglm" not in (board.root / "etc/passwd").read_text() + (board.root / "etc/group").read_text()
