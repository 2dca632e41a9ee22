"""Boards whose systemd really boots: a root in systemd-nspawn, on this machine's kernel and network.

A root of another architecture is translated by qemu, program by program. Nothing of the container outlives the test:
when its first process is ended the kernel ends all the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from tests.fakes.agents import wait_until

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
BOOT_S = 240.0
END_S = 30.0


class Container:
    """One board.

    Args:
        root: a root that is the test's own.
        wrapper: a command that starts the container's, given after it.
    """

    def __init__(self, root: Path, wrapper: tuple[str, ...] = ()) -> None:
        self.root = root
        self.log = root.parent / f"{root.name}.log"
        self._wrapper = wrapper
        self._process: subprocess.Popen[bytes] | None = None
        self.init = 0

    def __enter__(self) -> Container:
        try:
            self.boot()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None and self.init:
            print(self.run("journalctl", "--no-pager", "-n", "80", check=False))
        self.end()

    def boot(self) -> None:
        """Boot, and wait until systemd has started everything."""
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe", "--boot"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._wrapper, *command, f"--directory={self.root}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **ENVIRONMENT},
            )
        self.init = wait_until(self._first_process, BOOT_S, "the container has no process")
        wait_until(
            self._booted, BOOT_S, lambda: f"the container does not boot: {self.log.read_text(errors='replace')[-2000:]}"
        )

    def end(self) -> None:
        """Shut down in order, and at once if that takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        if self.init and process.poll() is None:
            os.kill(self.init, signal.SIGRTMIN + 4)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            if self.init:
                os.kill(self.init, signal.SIGKILL)  # with the first process the kernel ends all of its namespace
            process.kill()
            process.wait()
        self.init = 0

    def run(self, *command: str, check: bool = True, timeout_s: float = 240) -> str:
        """Run a command inside, to its end; returns what it printed."""
        entered = ["nsenter", "--target", str(self.init), "--all", *command]
        done = subprocess.run(
            entered, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False, env=ENVIRONMENT
        )
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def shown(self, unit: str, *properties: str) -> list[str]:
        """Return properties of a unit, in the order in which they are asked for."""
        shown = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties))
        values = dict(line.split("=", 1) for line in shown.splitlines())
        return [values[name] for name in properties]

    def _first_process(self) -> int | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"systemd-nspawn has ended: {self.log.read_text(errors='replace')[-2000:]}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for child in children:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"systemd" in command and b"nspawn" not in command:
                return int(child)
        return None

    def _booted(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")
