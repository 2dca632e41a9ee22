"""Wheels for a board: the locked ones by pip, for the board's platform; our own built from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from autoglm_edge_firmware.errors import FirmwareError
from autoglm_edge_firmware.package.architectures import Architecture
from autoglm_edge_firmware.package.lock import Locked

OWN = ("protocol", "agent")
"""Folders of the checkout whose distributions a board has."""
_LEFT_OUT = (
    "*/tests/*",
    "onnxruntime/capi/libonnxruntime.so*",  # for programs in C; the module for Python has it all in itself
    "onnxruntime/transformers/*",
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "ai_edge_litert/tools/*",  # compilers for the chips of phones
    "ai_edge_litert/vendors/*",
    "zstandard/_cffi*",  # for PyPy
)
"""Files of wheels that nothing on a board needs: half of all that they hold."""


def download(locked: Sequence[Locked], architecture: Architecture, python: str, directory: Path) -> list[Path]:
    """Fetch the wheels for one version of Python into an empty directory. Raises FirmwareError."""
    directory.mkdir(parents=True)
    requirements = directory / "requirements.txt"
    requirements.write_text("\n".join(entry.to_line() for entry in locked) + "\n", encoding="utf-8")
    platforms = [option for platform in architecture.platforms for option in ("--platform", platform)]
    _pip(
        f"the wheels of Python {python} on {architecture.name}",
        ["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation", "cp"],
        ["--python-version", python, *platforms, "--dest", str(directory), "--requirement", str(requirements)],
    )
    return sorted(directory.glob("*.whl"))


def build_own(checkout: Path, directory: Path, epoch: int) -> list[Path]:
    """Build the wheels of a board's own distributions. Raises FirmwareError."""
    sources = [str(checkout / name) for name in OWN]
    options = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory)]
    _pip("the agent's own wheels", options, sources, {"SOURCE_DATE_EPOCH": str(epoch)})
    return sorted(directory.glob("*.whl"))


def contents(wheel: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Return the files of a wheel as they lie in a folder of modules. Raises FirmwareError."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if not entry.is_dir() and (place := _place(PurePosixPath(entry.filename))) is not None:
                yield place, archive.read(entry)


def _place(path: PurePosixPath) -> PurePosixPath | None:
    if path.is_absolute() or ".." in path.parts:
        raise FirmwareError(f"a wheel has a file outside of itself: {path}")
    if path.parts[0].endswith(".data"):
        if path.parts[1] not in ("purelib", "platlib"):
            return None  # commands, manual pages, headers
        path = PurePosixPath(*path.parts[2:])
    return None if any(fnmatchcase(str(path), pattern) for pattern in _LEFT_OUT) else path


def _pip(
    what: str, command: Sequence[str], arguments: Sequence[str], environment: dict[str, str] | None = None
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *command, "--quiet", *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise FirmwareError(f"could not get {what}: {lines[-1] if lines else f'pip ended with {done.returncode}'}")
