"""Wheels of another architecture, as the requirement files lock them: what a board's pip would install, without it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
REQUIREMENTS = REPOSITORY / "requirements"

OLDEST_GLIBC = 17
"""Of glibc 2.x: manylinux's oldest for ARM."""


def locked(file: str, names: Iterable[str] | None = None) -> str:
    """Return the entries of a requirement file, hashes and all: those of some names, or every one.

    Raises KeyError where a name is not locked there.
    """
    text = (REQUIREMENTS / file).read_text(encoding="utf-8")
    entries = re.findall(r"^[a-z0-9][^\n]*\\\n(?:    --hash[^\n]*\n)+", text, re.MULTILINE)
    by_name = {re.split(r"[=\s;\[]", entry, maxsplit=1)[0]: entry for entry in entries}
    return "".join(entries if names is None else (by_name[name] for name in names))


def install(requirements: str, target: Path, machine: str, python: str, glibc: int, scratch: Path) -> None:
    """Install locked wheels into a folder.

    Args:
        requirements: text of a requirement file, with hashes.
        target: the folder, as it is on `sys.path` of the board.
        machine: as the wheels' names have it, such as `aarch64`.
        python: version of the board's Python, such as `3.11`.
        glibc: version 2.x of the board's C library.
        scratch: folder for the requirement file.
    """
    file = scratch / "requirements.txt"
    file.write_text(requirements, encoding="utf-8")
    _pip(target, ["--require-hashes", "-r", str(file)], platforms(machine, glibc), python)


def install_one(requirement: str, target: Path, machine: str, python: str, glibc: int) -> None:
    """Install a wheel that no file of ours locks, without what it depends on."""
    _pip(target, [requirement], platforms(machine, glibc), python)


def platforms(machine: str, glibc: int) -> list[str]:
    """Return the names of the platforms whose wheels run there."""
    return [f"manylinux_2_{minor}_{machine}" for minor in range(glibc, OLDEST_GLIBC - 1, -1)] + [
        f"manylinux2014_{machine}"
    ]


def _pip(target: Path, what: Sequence[str], platforms: Sequence[str], python: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    foreign = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    subprocess.run(
        [*pip, *foreign, *(f"--platform={each}" for each in platforms), "--target", str(target), *what],
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
