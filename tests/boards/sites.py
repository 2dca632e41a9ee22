"""A fleet and its guarded broker on this machine, and an emulated board that is to become a device of it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tests.boards import disks
from tests.boards.machines import HOST, Machine
from tests.boards.roots import KEPT
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.guarded_brokers import GuardedBroker
from tests.fakes.guarded_fleets import guarded_fleet
from tests.fakes.model_bundles import ModelBundle

from autoglm_edge_fleet.enrolment.claims import ClaimTerms
from autoglm_edge_fleet.fleet import DeviceStatus, Fleet
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.deployment import ReportedState

T = TypeVar("T")
Json = dict[str, Any]
Array = npt.NDArray[np.float32]

LOGS = KEPT / "logs"
"""What boards said on their consoles, and when what was seen: kept for whoever looks into a failure."""

CLAIM = "/etc/autoglm-edge/claim.json"
PREFIX = "cam"

SETTINGS = """
[device]
identity = "/var/lib/autoglm-edge/identity"
[inference]
run_timeout_s = 200
trial_timeout_s = 600
[inference.probe]
enabled = false
[telemetry]
sample_interval_s = 2
batch_interval_s = 5
"""
"""As the package's, but for the patience that a translated processor needs: measuring each way to run a model would
take minutes and tell nothing."""


@dataclass
class BoardSite:
    """A fleet, served, and one board, with the times at which things were seen to happen."""

    side: FleetProcess
    broker: GuardedBroker
    machine: Machine
    scratch: Path
    began: float = field(default_factory=time.monotonic)
    timeline: list[tuple[float, float, str]] = field(default_factory=list)

    @property
    def fleet(self) -> Fleet:
        return self.side.fleet

    def prepare(self, settings: str = SETTINGS) -> None:
        """Put onto the disk what a card gets: the claim, and what this test changes of the agent's settings."""
        disks.put(self.machine.disk, CLAIM, self.claim().to_text(), self.scratch, disks.ROOT_ONLY)
        disks.put(self.machine.disk, "/etc/autoglm-edge/agent.toml", settings, self.scratch)

    def claim(self, expires_s: float = 3600) -> Claim:
        """Return a new claim, with the addresses at which the board reaches the broker."""
        asks, belongs = (f"mqtts://{HOST}:{port}" for port in (self.broker.enrolment_port, self.broker.port))
        terms = ClaimTerms(expires_s, {"site": "berlin"})
        (claim,) = self.fleet.enrolment.create_claims(1, terms, asks, belongs, name_prefix=PREFIX)
        return claim

    def switch_on(self) -> None:
        self.began = self.machine.start()

    def note(self, what: str) -> None:
        """Put something that was just seen into the timeline: seconds since power came, and of the processor."""
        self.timeline.append((time.monotonic() - self.began, self.machine.used_s, what))

    def wait(self, what: str, condition: Callable[[], T | None], timeout_s: float = 400, pause_s: float = 0.2) -> T:
        """Wait until a condition gives something, note when it was, and return that."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (value := condition()) is not None:
                self.note(what)
                return value
            assert self.machine.is_on, f"the machine has ended: {self.machine.console()[-3000:]}"
            time.sleep(pause_s)
        raise AssertionError(f"not seen in {timeout_s:.0f} s: {what}\n{self.machine.console()[-6000:]}")

    def device(self) -> DeviceStatus | None:
        """The board as the fleet sees it; None before it is a device."""
        return next(iter(self.fleet.status()), None)

    def online(self) -> DeviceStatus | None:
        seen = self.device()
        return seen if seen is not None and seen.device.online else None

    def report(self) -> ReportedState | None:
        """What the board has said of itself; None before it has."""
        seen = self.device()
        return None if seen is None else seen.device.report

    def requests(self) -> int | None:
        """How many requests the device has told of; None before there is one."""
        status = self.device()
        return (status.telemetry.requests or None) if status is not None and status.telemetry is not None else None

    def served(self, x: Array, releases: Mapping[str, ModelBundle]) -> str | None:
        """The release of the model `linear` that answers, whose answer is right; None while none does."""
        body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}
        answer = self.infer("linear", body)
        if answer is None:
            return None
        version = str(answer["model_version"])
        y = np.array(answer["outputs"][0]["data"], np.float32)
        np.testing.assert_allclose(y, releases[version].expected(x)[0], rtol=1e-3, atol=1e-3)
        return version

    def request(self, path: str, body: object = None, timeout_s: float = 30) -> Json:
        """Ask the board over HTTP. Raises OSError where nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.machine.port}{path}", data=data)
        with urllib.request.urlopen(asked, timeout=timeout_s) as response:
            answer: Json = json.loads(response.read())
        return answer

    def infer(self, model: str, body: Json) -> Json | None:
        """The board's answer; None while nobody answers."""
        with suppress(OSError, urllib.error.HTTPError):
            return self.request(f"/v2/models/{model}/infer", body)
        return None


def kept_log(test: str) -> Path:
    """Return where a test's board writes its console, empty at first."""
    log = LOGS / f"{test}.serial"
    log.unlink(missing_ok=True)
    return log


@contextmanager
def board_site(machine: Machine, folder: Path) -> Iterator[BoardSite]:
    """A fleet with a broker that lets nobody in without a certificate, and a board that is not on yet.

    When what was seen to happen is written beside the console.
    """
    with guarded_fleet("mosquitto", folder, HOST) as (side, broker):
        site = BoardSite(side, broker, machine, folder)
        try:
            yield site
        finally:
            machine.cut()
            lines = [f"{clock:7.1f} s, {used:6.1f} s of the processor: {what}\n" for clock, used, what in site.timeline]
            machine.log.parent.mkdir(parents=True, exist_ok=True)
            machine.log.with_suffix(".timeline").write_text("".join(lines))
