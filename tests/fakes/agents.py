"""Real agent processes for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from tests.fakes.ports import free_port
from tests.fakes.processes import is_alive

FLEET = "testfleet"


class AgentProcess:
    """`autoglm-edge-agent run` with a state directory of its own, on free ports.

    Started and killed as often as a test likes; state and endpoints stay the same.
    """

    def __init__(
        self, directory: Path, broker_url: str, device: str = "dev-1", *, fleet: str = FLEET, **options: object
    ) -> None:
        self.directory = directory
        self.fleet = fleet
        self.device = device
        self.state = Path(str(options.get("state", directory / "state")))
        self.port = free_port()
        # pytest's folders are too deep for the 107 bytes of a Unix socket's path
        self._sockets = tempfile.TemporaryDirectory(prefix="agent-")
        self.socket = Path(self._sockets.name) / "inference.sock"
        self.log = directory / "agent.log"
        self.wrapper: list[str] = []
        """A command that runs the agent's own, given after it."""
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "agent.toml"
        self.config.write_text(self._config(broker_url, options), encoding="utf-8")

    def _config(self, broker_url: str, options: dict[str, object]) -> str:
        return f"""
{_who(self.fleet, self.device, broker_url, options)}
[storage]
directory = "{self.state}"
reserve_bytes = {options.get("reserve_bytes", 0)}
[inference]
socket = "{self.socket}"
http = "127.0.0.1:{self.port}"
run_timeout_s = {options.get("run_timeout_s", 60.0)}
[inference.probe]
enabled = {str(bool(options.get("probe", False))).lower()}
{options.get("probe") or ""}
[transfer]
{options.get("transfer", "")}
[probation]
max_duration_s = {options.get("probation_s", 0)}
[trust]
{_trust(options)}
[telemetry]
sample_interval_s = 0.2
batch_interval_s = {options.get("batch_interval_s", 0.5)}
"""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> AgentProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.wrapper,
                    str(Path(sys.executable).with_name("autoglm-edge-agent")),
                    "run",
                    "-c",
                    str(self.config),
                ],
                stdout=log,
                stderr=log,
            )
        return self

    def kill(self) -> None:
        """SIGKILL, as when the power goes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        """Kill it and forget its socket."""
        self.kill()
        self._sockets.cleanup()

    def __enter__(self) -> AgentProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is not None:
            sys.stderr.write(f"--- {self.device} ---\n{self.log.read_text(errors='replace')[-6000:]}\n")

    def infer(
        self, name: str, x: npt.NDArray[np.float32], timeout_s: float = 10.0
    ) -> tuple[str, npt.NDArray[np.float32]]:
        """Ask the device over HTTP; returns the version that answered and y."""
        body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}]}
        answer = self.request("POST", f"/v2/models/{name}/infer", body, timeout_s)
        y = np.array(answer["outputs"][0]["data"], np.float32).reshape(answer["outputs"][0]["shape"])
        return str(answer["model_version"]), y

    def request(self, method: str, path: str, body: object = None, timeout_s: float = 10.0) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return json.loads(response.read())

    def wait_serving(self, timeout_s: float = 30.0) -> None:
        """Wait until the device answers that it is ready."""
        wait_until(self._ready, timeout_s, "the device does not serve")

    def worker_pids(self) -> list[int]:
        """The processes that the agent has started and that are not over."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if is_alive(child)]

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def _ready(self) -> bool:
        try:
            return bool(self.request("GET", "/v2/health/ready", timeout_s=1.0)["ready"])
        except OSError:
            return False


def _who(fleet: str, device: str, broker_url: str, options: dict[str, object]) -> str:
    if identity := options.get("identity"):
        return f'[device]\nidentity = "{identity}"'
    return f'[device]\nfleet = "{fleet}"\nname = "{device}"\n[broker]\nurl = "{broker_url}"'


def _trust(options: dict[str, object]) -> str:
    if options.get("insecure"):
        return "insecure = true"
    lines = [f'{name} = "{options[name]}"' for name in ("root", "repository_url", "ca_file") if options.get(name)]
    return "\n".join(lines)


def wait_until(condition: Any, timeout_s: float, what: str | Callable[[], str], pause_s: float = 0.05) -> Any:
    """Wait until the condition gives something true, and return that; `what` is asked what failed only then."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause_s)
    raise AssertionError(f"{what if isinstance(what, str) else what()} (waited {timeout_s:.0f} s)")
