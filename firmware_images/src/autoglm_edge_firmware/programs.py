"""The programs of the workstation that file systems and images are made with, each run in one way.

Their output is English and their clock is UTC, whatever the user's settings: the output is read, the times are written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoglm_edge_firmware.errors import ProgramFailed

PACKAGES = {
    "arch-test": "arch-test",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "fsck.fat": "dosfstools",
    "lsblk": "util-linux",
    "mattrib": "mtools",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "mtype": "mtools",
    "qemu-aarch64-static": "qemu-user-static",
    "tune2fs": "e2fsprogs",
    "xz": "xz-utils",
    "zstd": "zstd",
}
"""The Debian package of each program that is used."""

_SYSTEM_FOLDERS = "/usr/sbin:/sbin"
"""Where the tools of file systems are, and where the PATH of a user who is not root does not lead."""

_LAST_WORDS = 300


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which programs run here."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_FOLDERS}"
    return {**os.environ, "PATH": path, "LC_ALL": "C", "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1", **(more or {})}


def path_of(program: str) -> str:
    """Return where a program is.

    Raises:
        ProgramFailed: it is not installed; the text says which package has it.
    """
    found = shutil.which(program, path=environment()["PATH"])
    if found is None:
        raise ProgramFailed(program, f"not installed: apt install {PACKAGES.get(program, program)}")
    return found


def run(
    program: str,
    *arguments: str | Path,
    given: bytes | None = None,
    more: Mapping[str, str] | None = None,
    good: Sequence[int] = (0,),
) -> bytes:
    """Run a program to its end and return what it printed.

    Raises:
        ProgramFailed: it is missing, or ended with another code than those of `good`.
    """
    ended = subprocess.run(
        [path_of(program), *map(str, arguments)],
        input=given or b"",
        capture_output=True,
        check=False,
        env=environment(more),
    )
    if ended.returncode not in good:
        raise ProgramFailed(program, last_words(ended.stderr or ended.stdout) or f"ended with {ended.returncode}")
    return ended.stdout


def last_words(output: bytes) -> str:
    """Return the end of what a program said, as one line."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-3:])[-_LAST_WORDS:]
