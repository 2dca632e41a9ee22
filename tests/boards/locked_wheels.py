"""Wheels of another architecture: those that the agent's package brings along, and what runs tests beside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_firmware.package.architectures import Architecture
from autoglm_edge_firmware.package.lock import Locked, needed, parse_lock

REPOSITORY = Path(__file__).parents[2]
REQUIREMENTS = REPOSITORY / "requirements"

TESTS = (
    "hypothesis",
    "iniconfig",
    "packaging",
    "pluggy",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "sortedcontainers",
)
"""What the tests of an agent import, where it has wheels for the architecture; a board's own lock goes first."""


def for_tests(architecture: Architecture, python: str, names: Sequence[str]) -> tuple[Locked, ...]:
    """Return what a board has, as its package locks it, and some of what tests need, as theirs do."""
    board = needed(_lock("board.txt"), architecture, python)
    have = {entry.name for entry in board}
    tests = needed(_lock("agent.txt"), architecture, python)
    return (*board, *(entry for entry in tests if entry.name in names and entry.name not in have))


def install(
    requirements: Sequence[str], target: Path, architecture: Architecture, python: str, scratch: Path | None = None
) -> None:
    """Install wheels into a folder that is on `sys.path` of the board; with a folder for scratch, by their hashes."""
    what = list(requirements)
    if scratch is not None:
        (scratch / "requirements.txt").write_text("\n".join(requirements), encoding="utf-8")
        what = ["--require-hashes", "-r", str(scratch / "requirements.txt")]
    platforms = [f"--platform={each}" for each in architecture.platforms]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    foreign = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]
    done = subprocess.run(
        [*pip, *foreign, "--target", str(target), *what], capture_output=True, text=True, timeout=280, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pip failed: {done.stderr[-2000:]}")


def _lock(file: str) -> tuple[Locked, ...]:
    return parse_lock((REQUIREMENTS / file).read_text(encoding="utf-8"))
