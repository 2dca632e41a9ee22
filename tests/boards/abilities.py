"""Why this machine cannot emulate a board, if it cannot: what tests say when they are skipped."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.boards import debian

BINFMT = Path("/proc/sys/fs/binfmt_misc")


def why_not(emulator: str) -> str | None:
    """Return what is missing to run programs of another architecture by an emulator of the kernel's list."""
    if reason := why_no_roots():
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
    missing = [program for program in ("mmdebstrap", *programs) if shutil.which(program) is None]
    return f"{' and '.join(missing)} not installed: python3 scripts/boards.py" if missing else None
