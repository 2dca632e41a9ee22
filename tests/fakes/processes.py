"""Looking at processes, which may end while they are looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil


def is_alive(process: psutil.Process | int) -> bool:
    """Tell whether a process has not ended yet; one that its parent has not waited for has."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return found.is_running() and bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def halt(pid: int) -> None:
    """Stop a process; returns when none of its threads runs any more, which may be later than the signal is sent."""
    os.kill(pid, signal.SIGSTOP)
    for _ in range(200):
        if all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()):
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} goes on")


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def running(module: str, parent: int | None = None, *, recursive: bool = False) -> list[psutil.Process]:
    """Return the children of a process, of this one when left out, that run a module."""
    found = []
    for child in psutil.Process(parent).children(recursive=recursive):
        with contextlib.suppress(psutil.Error):  # a zombie has no command line
            if any(module in word for word in child.cmdline()):
                found.append(child)
    return found
