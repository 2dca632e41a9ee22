"""A broker, a served fleet with one large bundle, and processes of devices, for one measurement."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.fakes.agents import FLEET, wait_until
from tests.fakes.brokers import Broker
from tests.fakes.bundles import make_bundle
from tests.fakes.fleet_processes import FleetProcess

from autoglm_edge_protocol.names import BundleId


@dataclass(frozen=True)
class Measured:
    """What one fetch by some devices cost."""

    took_s: dict[str, float]
    device_cpu_s: float
    fleet_cpu_s: float
    broker_cpu_s: float
    egress_bytes: int
    fleet_grew_bytes: int
    broker_grew_bytes: int


class Stage:
    """A fleet that serves `size_bytes` of random bytes."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self.directory = directory
        self.broker = Broker("mosquitto", directory / "broker")
        self._size_bytes = size_bytes
        self._round = 0

    @contextlib.contextmanager
    def run(self) -> Iterator[Stage]:
        """Start broker and fleet."""
        with self.broker, FleetProcess(self.directory / "fleet", self.broker.url) as served:
            self.served = served
            made = make_bundle(self.directory / "bundle", payload_bytes=self._size_bytes)
            self.reference = served.fleet.publish(made).bundle.reference
            yield self

    def measure(self, urls: Mapping[str, str], share: bool, processes: int = 2) -> Measured:
        """Let devices (name -> address of their broker) fetch the bundle, all at once."""
        self._round += 1
        bundle = BundleId(name=self.reference.name, version=self.reference.version)
        names = list(urls)
        children = [
            self._spawn({name: urls[name] for name in names[first::processes]}, share) for first in range(processes)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == "ready"
        fleet = self.served.fleet
        wait_until(lambda: sum(d.online for d in fleet.devices()) >= len(names), 30, "not all online")
        fleet.deploy(bundle, names)
        serving, broker = self._process(), psutil.Process(self.broker.pid)
        watched = (serving, broker)
        self._wait_idle(serving)  # orders are signed and sent, which is no part of the transfer
        before, sent_before = [_cpu_s(each) for each in watched], fleet.egress().size_bytes
        rss_before = [each.memory_info().rss for each in watched]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        peaks = self._watch_memory(children, watched)
        results = [self._result(child) for child in children]
        cpu_s = [_cpu_s(each) - was for each, was in zip(watched, before, strict=True)]
        grew_bytes = [max(0, peak - was) for peak, was in zip(peaks, rss_before, strict=True)]
        total = self.reference.manifest_size_bytes
        sent = wait_until(lambda: self._settled(sent_before), 10, "the fleet sent nothing")
        assert isinstance(sent, int)
        assert sent > total
        return Measured(
            {name: took for result in results for name, took in result["took_s"].items()},
            sum(result["cpu_s"] for result in results),
            *cpu_s,
            sent,
            *grew_bytes,
        )

    def _wait_idle(self, process: psutil.Process) -> None:
        def is_idle() -> bool:
            before = _cpu_s(process)
            time.sleep(0.5)
            return _cpu_s(process) - before < 0.05

        wait_until(is_idle, 30, "the fleet finds no rest")

    def _settled(self, before: int) -> int:
        # The daemon writes its counters once a second.
        first = self.served.fleet.egress().size_bytes
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", "import time; time.sleep(1.5)"], check=True)
        second = self.served.fleet.egress().size_bytes
        return second - before if first == second and second > before else 0

    def _spawn(self, urls: dict[str, str], share: bool) -> subprocess.Popen[str]:
        orders: dict[str, Any] = {
            "directory": str(self.directory / f"devices-{self._round}"),
            "fleet": FLEET,
            "devices": urls,
            "bundle": self.reference.model_dump(),
            "share": share,
            # A device that comes back has a newer session, else the fleet takes it for a ghost.
            "session": 100 * self._round,
        }
        command = [sys.executable, "-m", "benchmarks.transfer.devices", json.dumps(orders)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _process(self) -> psutil.Process:
        return psutil.Process(self.served.pid)

    def _watch_memory(
        self, children: list[subprocess.Popen[str]], watched: tuple[psutil.Process, ...]
    ) -> tuple[int, ...]:
        peaks = (0,) * len(watched)
        for child in children:
            while child.poll() is None:
                peaks = tuple(max(peak, each.memory_info().rss) for peak, each in zip(peaks, watched, strict=True))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.05)
        return peaks

    def _result(self, child: subprocess.Popen[str]) -> dict[str, Any]:
        assert child.stdout is not None
        found: dict[str, Any] = json.loads(child.stdout.read())
        assert child.wait() == 0
        return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
