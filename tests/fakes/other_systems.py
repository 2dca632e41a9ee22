"""A process whose own code, and no library's, finds what Python has on another system, to see that it starts there.

    python -m tests.fakes.other_systems SYSTEM DIRECTORY

Libraries keep the system that they are on, as they have ways of their own for each. What is simulated is what can be
asked while modules are imported and in a command that starts no process: modules, their attributes, `sys.platform`.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import pkgutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = "autoglm_edge"
PACKAGES = (OURS, f"{OURS}_converter", f"{OURS}_firmware", f"{OURS}_fleet", f"{OURS}_protocol")
EXTRAS = frozenset(
    [
        "h5py",
        "keras",
        "litert_torch",
        "onnx2tf",
        "onnxscript",
        "safetensors",
        "tensorflow",
        "tf2onnx",
        "torch",
        "torch_pruning",
    ]
)
"""What the imports of some modules may lack."""

ONLY_LINUX = {
    "errno": ("ENOMEDIUM", "EREMOTEIO", "EMEDIUMTYPE", "ENOKEY"),
    "os": (
        *(
            "copy_file_range",
            "eventfd",
            "fdatasync",
            "getxattr",
            "memfd_create",
            "pidfd_open",
            "pipe2",
            "posix_fadvise",
        ),
        *("posix_fallocate", "sched_getaffinity", "sched_setaffinity", "setxattr", "splice", "unshare"),
        *("O_DIRECT", "O_PATH", "O_TMPFILE", "POSIX_FADV_DONTNEED", "SCHED_BATCH"),
    ),
    "socket": ("SO_PEERCRED", "SCM_CREDENTIALS", "AF_NETLINK", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
    "signal": ("SIGPWR", "SIGSTKFLT", "SIGRTMIN", "sigtimedwait"),
}
ONLY_UNIX = {
    "errno": ("EDQUOT", "ENOTBLK"),
    "os": (
        *("chown", "chroot", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getloadavg"),
        *("getpgid", "getuid", "killpg", "lchown", "mkfifo", "mknod", "nice", "openpty", "posix_spawn", "pread"),
        *("preadv", "pwrite", "pwritev", "sendfile", "setgid", "setpgid", "setsid", "setuid", "statvfs", "sync"),
        *("sysconf", "tcgetpgrp", "ttyname", "uname", "wait", "wait3", "WIFEXITED", "WNOHANG"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC"),
    ),
    "socket": ("AF_UNIX", "recv_fds", "send_fds"),
    "signal": (
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1"),
        *("SIGUSR2", "SIGWINCH", "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"),
    ),
}
UNIX_MODULES = frozenset(
    [
        "crypt",
        "curses",
        "fcntl",
        "grp",
        "nis",
        "posix",
        "pty",
        "pwd",
        "readline",
        "resource",
        "spwd",
        "syslog",
        "termios",
        "tty",
    ]
)


@dataclass(frozen=True)
class System:
    """What a system has otherwise than Linux."""

    platform: str
    os_name: str
    modules: frozenset[str]
    attributes: tuple[Mapping[str, tuple[str, ...]], ...]


SYSTEMS = {
    "macos": System("darwin", "posix", frozenset({"spwd"}), (ONLY_LINUX,)),
    "windows": System("win32", "nt", UNIX_MODULES, (ONLY_LINUX, ONLY_UNIX)),
}


class Shown(ModuleType):
    """A module with some attributes taken away, and others in their place."""

    def __init__(self, true: ModuleType, absent: frozenset[str], instead: Mapping[str, object]) -> None:
        super().__init__(true.__name__)
        self.__dict__.update(instead)
        self._true, self._absent = true, absent

    def __getattr__(self, name: str) -> Any:
        if name in self._absent:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._true, name)


def pretend(system: System) -> None:
    """Let what our code imports from now on be what the system has."""
    shown: dict[str, ModuleType] = {}
    for true in (errno, os, signal, socket, sys):
        name = true.__name__
        absent = frozenset(each for only in system.attributes for each in only.get(name, ()))
        instead: Mapping[str, object] = {"sys": {"platform": system.platform}, "os": {"name": system.os_name}}.get(
            name, {}
        )
        if name == "errno":
            instead = {"errorcode": {n: e for n, e in errno.errorcode.items() if e not in absent}}
        shown[name] = Shown(true, absent, instead)
    builtins.__import__ = _importing(builtins.__import__, system, shown)


def _importing(true: Callable[..., ModuleType], system: System, shown: Mapping[str, ModuleType]) -> Any:
    def importing(
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - by this name it is given
        *more: Any,
        **named: Any,
    ) -> ModuleType:
        found_by = str((globals or {}).get("__name__", ""))
        if found_by.startswith(OURS) and name in system.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        found = true(name, globals, *more, **named)
        return shown.get(found.__name__, found) if found_by.startswith(OURS) else found

    return importing


def import_all() -> int:
    """Import every module of the workstation that needs no extra; returns how many there are."""
    names = list(PACKAGES)
    for package in PACKAGES:
        found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        names += [each.name for each in found]
    return sum(_is_imported(name) for name in names)


def _is_imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return False
    return True


def refused(statement: str) -> bool:
    """Whether our code cannot do this here, as it could on Linux."""
    try:
        exec(statement, {"__name__": f"{OURS}.asking"})
    except (ImportError, AttributeError):
        return True
    return False


def main() -> None:
    """Import all, and run commands that need no other process."""
    directory = Path(sys.argv[2])
    pretend(SYSTEMS[sys.argv[1]])
    print("refused:", *(each for each in ("fcntl.ioctl", "os.geteuid", "os.posix_fadvise", "signal.SIGKILL")
                        if refused(f"import {each.partition('.')[0]}\n{each}")))  # fmt: skip
    print("modules:", import_all())
    from autoglm_edge.app import main as command

    for given in (["--help"], ["targets"], ["fleet", "init", str(directory / "fleet"), "--unencrypted"]):
        sys.argv = ["autoglm-edge", *given]
        try:
            command()
        except SystemExit as ended:
            if ended.code:
                raise
        sys.stdout.flush()


if __name__ == "__main__":
    main()
