"""Real brokers with the files that `fleet broker config` writes, and clients that try what they should not."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from tests.fakes.ports import free_port

from autoglm_edge_agent.enrolment.key_work import FileKey
from autoglm_edge_fleet.broker_access.folder import FLEET_CERTIFICATE, FLEET_KEY
from autoglm_edge_fleet.broker_access.plan import BrokerSettings, Kind
from autoglm_edge_fleet.database import Database
from autoglm_edge_fleet.enrolment.certificates import store_certificate
from autoglm_edge_fleet.enrolment.signing_requests import read_request
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.local_broker import end_process, find_program
from autoglm_edge_protocol.durable import Disk

OBSERVER = "the.observer"
START_S = 20.0
WAIT_S = 15.0


@dataclass(frozen=True)
class Papers:
    """A certificate and its key."""

    certificate: Path
    key: Path


class GuardedBroker:
    """The broker of a fleet, in `folder`. A context manager."""

    def __init__(self, fleet: Fleet, kind: Kind, folder: Path) -> None:
        self.fleet = fleet
        self.kind = kind
        self.folder = folder
        self.port, self.enrolment_port = free_port(), free_port()
        client = free_port()
        while (second := free_port()) != client + 1:  # NATS's second server takes the port after the first one's
            client = second
        self.inner_ports = (client, free_port())
        self._processes: list[subprocess.Popen[bytes]] = []
        fleet.enrolment.found(plain=True)
        fleet.enrolment.broker.configure(
            BrokerSettings(
                broker=kind,
                hosts=("127.0.0.1", "localhost"),
                bind="127.0.0.1",
                port=self.port,
                enrolment_port=self.enrolment_port,
                inner_ports=self.inner_ports,
                secret="between-the-servers",
                folder=str(folder),
                place=str(folder),
            )
        )

    @property
    def urls(self) -> tuple[str, str]:
        return f"mqtts://127.0.0.1:{self.port}", f"mqtts://127.0.0.1:{self.enrolment_port}"

    @property
    def authority(self) -> Path:
        return self.folder / "fleet-ca.pem"

    def _admit_observer(self) -> None:
        """Add somebody who sees everything, which no fleet has, to the files as they were written."""
        if self.kind == "mosquitto":
            path = self.folder / "devices.acl"
            path.write_text(f"user {OBSERVER}\ntopic read #\n\n{path.read_text()}")
        else:
            path = self.folder / "devices.conf"
            user = f'{{ user: "CN={OBSERVER}", allowed_connection_types: ["MQTT"] }}'
            path.write_text(path.read_text().replace("users: [", f"users: [ {user}", 1))

    @property
    def observer(self) -> Papers:
        papers = Papers(self.folder / "observer.pem", self.folder / "observer.key")
        if not papers.certificate.exists():
            made, key = self.fleet.enrolment.authority.issue_client(OBSERVER, time.time())
            papers.certificate.write_text(made.pem)
            papers.key.write_bytes(key)
        return papers

    @property
    def owner(self) -> Papers:
        return Papers(self.fleet.directory / FLEET_CERTIFICATE, self.fleet.directory / FLEET_KEY)

    def start(self) -> None:
        program = find_program(self.kind)
        assert program is not None
        self._admit_observer()
        names = ["devices.conf", "enrolment.conf"]
        if self.kind == "mosquitto":
            # As Debian's own mosquitto.conf does, which includes ours.
            user = "user root\n" if os.geteuid() == 0 else ""
            whole = f"{user}persistence true\npersistence_location {self.folder}/\ninclude_dir {self.folder}/conf.d\n"
            (self.folder / "whole").write_text(whole)
            (self.folder / "conf.d").mkdir(exist_ok=True)
            (self.folder / "conf.d" / "fleet.conf").write_text((self.folder / "mosquitto.conf").read_text())
            names = ["whole"]
        with (self.folder / "broker.log").open("ab") as log:
            for name in names:
                command = [program, "-c", str(self.folder / name)]
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))
                if name != "enrolment.conf":
                    self._wait_listening(self.port)
                if name != "devices.conf":
                    self._wait_listening(self.enrolment_port)

    def _wait_listening(self, port: int) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(self.log_text()[-3000:])

    def reload(self) -> None:
        """Let it read its files again."""
        self._admit_observer()
        for process in self._processes:
            process.send_signal(signal.SIGHUP)

    def reload_by_command(self) -> None:
        """Let the fleet reload it whenever it has written its files, as `fleet broker config --reload` does."""
        path = self.folder / "pids"
        path.write_text("\n".join(str(process.pid) for process in self._processes))
        settings = self.fleet.enrolment.broker.settings()
        assert settings is not None
        reload = ("/bin/sh", "-c", f"kill -HUP $(cat {path})")
        self.fleet.enrolment.broker.configure(settings.model_copy(update={"reload": reload}))
        self.reload()

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        while self._processes:
            end_process(self._processes.pop())

    def log_text(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")

    def __enter__(self) -> GuardedBroker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # who is tried ----

    def papers(self, device: str, now: float | None = None) -> Papers:
        """A device's certificate, as the fleet gives it; `now` is when it was given."""
        base = self.folder.parent / f"{device}-{time.monotonic_ns()}"
        key = read_request(FileKey(base.with_suffix(".key"), Disk()).request())
        made = self.fleet.enrolment.authority.issue_device(device, key, time.time() if now is None else now)
        base.with_suffix(".pem").write_text(made.pem)
        database = Database(self.fleet.directory / "fleet.db")
        with database.transaction() as connection:
            store_certificate(connection, device, made, None, None)
        database.close()
        self.fleet.enrolment.broker.refresh()
        return Papers(base.with_suffix(".pem"), base.with_suffix(".key"))

    def device(self, papers: Papers, client_id: str, **more: str) -> Visitor:
        return Visitor(self, self.port, client_id, papers, **more)

    def board(self, client_id: str, user: str | None = None) -> Visitor:
        return Visitor(self, self.enrolment_port, client_id, None, user)


class Visitor:
    """A client of a broker: what it got, and whether it was let in."""

    def __init__(
        self,
        broker: GuardedBroker,
        port: int,
        client_id: str,
        papers: Papers | None,
        user: str | None = None,
        will: str | None = None,
    ) -> None:
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=True, reconnect_on_failure=False
        )
        context = ssl.create_default_context(cafile=str(broker.authority))
        if papers is not None:
            context.load_cert_chain(papers.certificate, papers.key)
        self._client.tls_set_context(context)
        if user is not None:
            self._client.username_pw_set(user, "x")
        if will is not None:
            self._client.will_set(will, b"will", qos=1)
        self._port = port
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._answered = threading.Event()
        self._gone = threading.Event()
        self._granted = threading.Event()
        self.is_in = False
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_subscribe = lambda *_: self._granted.set()
        self._client.on_message = lambda _c, _u, message: self.got.put((message.topic, bytes(message.payload)))

    def _connected(self, _c: object, _u: object, _f: object, reason: ReasonCode, _p: object) -> None:
        self.is_in = not reason.is_failure
        self._answered.set()

    def _disconnected(self, _c: object, _u: object, _f: object, _reason: object, _p: object) -> None:
        self._gone.set()
        self._answered.set()

    def __enter__(self) -> Visitor:
        try:
            self._client.connect("127.0.0.1", self._port, keepalive=30)
        except OSError:
            return self  # refused in the handshake
        self._client.loop_start()
        self._answered.wait(WAIT_S)
        # With TLS 1.3 a certificate is refused after the client believes to be done.
        if self.is_in and self._gone.is_set():
            self.is_in = False
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def cut(self) -> None:
        """End the connection without a word, so that the broker publishes the will."""
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    def wait_gone(self) -> bool:
        return self._gone.wait(WAIT_S)

    def subscribe(self, *filters: str) -> None:
        for each in filters:
            self._granted.clear()
            self._client.subscribe(each, 1)
            assert self._granted.wait(WAIT_S)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        with contextlib.suppress(RuntimeError):  # not let in, or thrown out
            self._client.publish(topic, payload, 1, retain).wait_for_publish(WAIT_S)

    def until(self, payload: bytes) -> list[tuple[str, bytes]]:
        """What comes until this does, and that last."""
        came: list[tuple[str, bytes]] = []
        while not came or came[-1][1] != payload:
            came.append(self.got.get(timeout=WAIT_S))
        return came
