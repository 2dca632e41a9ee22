"""The real fleet for end-to-end tests: a folder made by `fleet init`, and a `fleet serve` that can be killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.fakes.agents import FLEET

from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.trust.custody import Foundation


class FleetProcess:
    """`autoglm-edge fleet serve`."""

    def __init__(self, directory: Path, broker_url: str, fleet: Fleet | None = None) -> None:
        self.directory = directory
        self.fleet = fleet or Fleet.init(directory, FLEET, broker_url)
        self.fleet.trust.found(Foundation(directory / "root-keys", plain=True))
        self.log = directory / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            str(Path(sys.executable).with_name("autoglm-edge")),
            "fleet",
            "serve",
            "--fleet",
            str(self.directory),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM, upon which it writes its counters; returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL, as when the power goes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> FleetProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self.fleet.close()
        if kind is not None:
            sys.stderr.write(f"--- fleet serve ---\n{self.log.read_text(errors='replace')[-4000:]}\n")
