"""Isolated virtual environments, for tools whose pins conflict with ours and for old versions of runtimes.

Made on first use from locked requirements (package data, every file with its digest) and kept in the user's cache
folder under `NAME-DIGEST`. An environment is built beside its place and renamed when it is whole, so a folder that has
the name can be used; one process at a time builds, and what a killed one left is removed by the next. pip's own
configuration says where packages come from.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO

from autoglm_edge_converter.cache import user_cache_folder
from autoglm_edge_converter.errors import EnvironmentUnavailable
from autoglm_edge_converter.interpreters import find_interpreter, variable_of
from autoglm_edge_converter.progress import Progress, Silent
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk

FOLDER_VARIABLE = "AUTOGLM_EDGE_ENVIRONMENTS"
"""Where environments are kept, if not in the user's cache folder."""

_MB = 1024 * 1024
_PINNED = re.compile(r"^([A-Za-z0-9_.\-]+)==(\S+)", re.MULTILINE)
_TAKEN_UP = re.compile(r"^(?:Collecting|Processing) (?:\S*/)?([A-Za-z0-9_.]+)")
"""What pip says of a package from the index, and of a file of its own."""


@dataclass(frozen=True)
class Environment:
    """What an environment holds. `name` is also that of its locked requirements, `isolated/locked/NAME.txt`."""

    name: str
    pythons: tuple[str, ...]
    """Versions that its packages have wheels for, best first."""
    size_bytes: int
    """Needed while it is made."""

    @property
    def requirements(self) -> Path:
        """The locked requirements."""
        return Path(str(files("autoglm_edge_converter") / "isolated" / "locked" / f"{self.name}.txt"))

    @property
    def pins(self) -> dict[str, str]:
        """Version by package."""
        return dict(_PINNED.findall(self.requirements.read_text(encoding="utf-8")))


ENVIRONMENTS = {
    entry.name: entry
    for entry in (
        Environment("onnx2tf", ("3.12", "3.13"), 1000 * _MB),
        Environment("onnxruntime-1.17", ("3.11", "3.12", "3.10", "3.9"), 400 * _MB),
        Environment("litert-1.0", ("3.11", "3.10", "3.9"), 250 * _MB),
        Environment("tflite-2.14", ("3.11", "3.10", "3.9"), 250 * _MB),
    )
}


def environments_folder() -> Path:
    """Return where environments are kept."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).absolute() if named else user_cache_folder() / "environments"


def find_environment(name: str, folder: Path | None = None) -> Path | None:
    """Return the interpreter of an environment that was made before, None where there is none that works."""
    environment = ENVIRONMENTS[name]
    for version in environment.pythons:
        python = _python_in(_place(environment, version, folder or environments_folder()))
        if python.exists():  # false too for a link to a base interpreter that is gone
            return python
    return None


def ready_environment(
    name: str, progress: Progress | None = None, folder: Path | None = None, disk: Disk | None = None
) -> Path:
    """Return the interpreter of an environment, which is made where it is missing. Raises EnvironmentUnavailable.

    To be called as `[python, "-I", PROGRAM]`: variables and packages of the user must not reach into it.
    """
    folder, progress, disk = folder or environments_folder(), progress or Silent(), disk or Disk()
    environment = ENVIRONMENTS[name]
    found = find_environment(name, folder)
    if found is not None:
        return found
    interpreter = find_interpreter(environment.pythons)
    if interpreter is None:
        raise EnvironmentUnavailable(
            name,
            f"it needs Python {' or '.join(environment.pythons)} with the modules venv and ensurepip, and none was "
            f"found: install one, or name its interpreter in {variable_of(environment.pythons[0])}",
        )
    version, python = interpreter
    place = _place(environment, version, folder)
    try:
        disk.make_directories(folder)
        with _alone(folder / f".{place.name}.lock") as held:
            if not _python_in(place).exists():
                _make(_Order(environment, python, place, held), progress, disk)
    except OSError as error:
        raise EnvironmentUnavailable(name, _trouble(folder, error.strerror or str(error))) from None
    return _python_in(place)


def _trouble(folder: Path, reason: str) -> str:
    return f"{folder} cannot be written ({reason}): name another folder in {FOLDER_VARIABLE}"


def _place(environment: Environment, version: str, folder: Path) -> Path:
    digest = sha256_of(environment.requirements.read_bytes() + version.encode())
    return folder / f"{environment.name}-{digest[:12]}"


def _python_in(place: Path) -> Path:
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@dataclass(frozen=True)
class _Order:
    """An environment to make: with which interpreter, where, and the descriptor of the lock that is held."""

    environment: Environment
    python: Path
    place: Path
    held: tuple[int, ...]

    @property
    def making(self) -> Path:
        return self.place.with_name(f"{self.place.name}.making")


def _make(order: _Order, progress: Progress, disk: Disk) -> None:
    """Build beside and rename. Raises EnvironmentUnavailable, OSError."""
    environment, place = order.environment, order.place
    free = disk.free_bytes(place.parent)
    if free < environment.size_bytes:
        raise EnvironmentUnavailable(
            environment.name,
            f"it takes {environment.size_bytes // _MB} MB and {free // _MB} MB are free in {place.parent}: make room, "
            f"or name another folder in {FOLDER_VARIABLE}",
        )
    disk.remove_tree(order.making)  # of a process that was killed
    disk.remove_tree(place)  # of a base interpreter that is gone
    progress.stage(f"make the environment {environment.name} (once)", len(environment.pins) + 2)
    try:
        _fill(order, progress)
        if hasattr(os, "sync"):
            os.sync()  # a loss of power must not leave the name with empty files behind it
        disk.promote(order.making, place)
    except BaseException:
        with suppress(OSError):
            disk.remove_tree(order.making)
        raise


def _fill(order: _Order, progress: Progress) -> None:
    made = subprocess.run(
        [str(order.python), "-I", "-m", "venv", str(order.making)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise EnvironmentUnavailable(order.environment.name, _why(order, made.stdout + made.stderr))
    progress.step("virtual environment")
    # pip holds the lock too: where this process is killed and pip lives on, the next one waits for its end.
    with subprocess.Popen(
        pip_command(_python_in(order.making), order.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=order.held,
    ) as pip:
        assert pip.stdout is not None
        try:
            said = _follow(pip.stdout, progress)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise EnvironmentUnavailable(order.environment.name, _why(order, said))
    progress.step("packages installed")


def pip_command(python: Path, environment: Environment) -> list[str]:
    """Return the command that installs the locked requirements: wheels only, nothing that is not locked."""
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=2", "--timeout=20"]
    # What is imported is compiled then: of a framework's thousands of files that is the smaller part.
    options += ["--no-compile", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    options += ["-r", str(environment.requirements)]
    return [str(python), "-I", "-m", "pip", "install", *options]


def _follow(lines: IO[str], progress: Progress) -> str:
    said = []
    for line in lines:
        said.append(line)
        found = _TAKEN_UP.match(line)
        if found:
            progress.step(found.group(1))
    return "".join(said)


_REASONS = (
    ("No space left on device", "the disk is full: make room, or name another folder in " + FOLDER_VARIABLE),
    ("DO NOT MATCH THE HASHES", "a package is not the one that was locked: clear pip's cache, check the package index"),
)


def _why(order: _Order, said: str) -> str:
    """Read what pip said; the line ends with what to do."""
    for sign, reason in _REASONS:
        if sign in said:
            return reason
    wrong = [line for line in said.splitlines() if line.startswith("ERROR: ")] or said.strip().splitlines()[-1:]
    last = (wrong or ["no message"])[-1].removeprefix("ERROR: ")[:200].rstrip(". ")
    install = " ".join(pip_command(_python_in(order.place), order.environment))
    return (
        f"pip says: {last}. Is the package index reachable? By hand: {order.python} -m venv {order.place} && {install}"
    )


@contextmanager
def _alone(lock: Path) -> Iterator[tuple[int, ...]]:
    """Let one process at a time into the block, with the descriptor of the lock. Raises OSError."""
    if sys.platform == "win32":
        yield ()
    else:
        import fcntl

        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield (file.fileno(),)
