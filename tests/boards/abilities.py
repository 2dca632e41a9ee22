"""Why this machine cannot emulate a board, if it cannot: what tests say when they are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.boards import debian

BINFMT = Path("/proc/sys/fs/binfmt_misc")


BOOT = ("cpio", "debugfs", "depmod", "dpkg", "mke2fs", "qemu-system-aarch64")
"""Programs that make and run a whole board."""


def why_not(emulator: str, *programs: str) -> str | None:
    """Return what is missing to run programs of another architecture by an emulator of the kernel's list."""
    if reason := why_no_roots(*programs):
        return reason
    if not (BINFMT / emulator).exists():
        return f"the kernel does not know {emulator}: python3 scripts/boards.py"
    return None


def why_no_roots(*programs: str) -> str | None:
    """Return what is missing to make roots of Debian for boards, and to run some programs."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "boards are emulated by root on Linux"
    if debian.release() != "bookworm":
        return "boards are emulated on Debian 12, whose packages they get"
    missing = [program for program in ("mmdebstrap", "unshare", *programs) if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: python3 scripts/boards.py"
    alone = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "boards are emulated by a root that may mount, which this one may not" if alone.returncode else None
