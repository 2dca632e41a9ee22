"""Programs of another architecture in a root of it, each translated by qemu for the processor that a board has.

Every command runs in mount and process namespaces of its own, so that nothing of it is left when it is over, however it
ends. It sees the root read-only, the checkout at /checkout, the files of the board in place of this machine's /sys and
/proc/cpuinfo, and this machine's network. Without those files runtimes read of an x86 processor and crash.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.boards.locked_wheels import REPOSITORY
from tests.boards.machines import DIES_WITH_US

# The shell stays as the first process of the namespace, for which a signal like SIGILL would be ignored.
_ENTER = """
set -e
root=$1 files=$2; shift 2
mount --bind -o ro "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind -o ro "$files/proc/cpuinfo" "$root/proc/cpuinfo"
mount --bind -o ro "$files/sys" "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
while [ "$1" != -- ]; do
  mount --bind -o ro "$1" "$root$2"
  shift 2
done
shift
set +e
chroot "$root" /usr/bin/env -i "$@"
exit $?
"""

SOURCES = ":".join(f"/checkout/{name}/src" for name in ("protocol", "agent"))


@dataclass(frozen=True)
class EmulatedBoard:
    """A root, the processor that runs it, and the board's files."""

    root: Path
    processor: str
    files: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *command: str, given: Path | None = None, timeout_s: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with a folder of this machine at /given; stdout and stderr are one."""
        return subprocess.run(
            self._command(command, given, environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def start(self, *command: str, given: Path | None = None) -> AbstractContextManager[subprocess.Popen[str]]:
        """Start a command and give its output as it comes; killed, with all that it started, at the end."""
        return Running(self._command(command, given, {}))

    def _command(self, command: tuple[str, ...], given: Path | None, more: Mapping[str, str]) -> list[str]:
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONPATH": SOURCES,
            "PYTHONDONTWRITEBYTECODE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "QEMU_CPU": self.processor,
            **self.environment,
            **more,
        }
        binds = [str(REPOSITORY), "/checkout", *([str(given), "/given"] if given else [])]
        alone = [*DIES_WITH_US, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        enter = ["sh", "-c", _ENTER, "enter", str(self.root), str(self.files), *binds, "--"]
        return [*alone, *enter, *(f"{name}={value}" for name, value in variables.items()), *command]


class Running(AbstractContextManager[subprocess.Popen[str]]):
    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
