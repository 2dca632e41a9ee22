"""Looking at processes, which may end while they are looked at."""

from __future__ import annotations

import contextlib

import psutil


def is_alive(process: psutil.Process | int) -> bool:
    """Tell whether a process has not ended yet; one that its parent has not waited for has."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return found.is_running() and bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def running(module: str, parent: int | None = None, *, recursive: bool = False) -> list[psutil.Process]:
    """Return the children of a process, of this one when left out, that run a module."""
    found = []
    for child in psutil.Process(parent).children(recursive=recursive):
        with contextlib.suppress(psutil.Error):  # a zombie has no command line
            if any(module in word for word in child.cmdline()):
                found.append(child)
    return found
