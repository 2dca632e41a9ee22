"""Builds the package of one architecture from a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_firmware.errors import FirmwareError
from autoglm_edge_firmware.package.architectures import Architecture, architecture
from autoglm_edge_firmware.package.control import NAME, Described, control_text
from autoglm_edge_firmware.package.deb import pack
from autoglm_edge_firmware.package.layout import control_files, modules, system_files
from autoglm_edge_firmware.package.lock import needed, parse_lock
from autoglm_edge_firmware.package.wheels import build_own, download
from autoglm_edge_protocol.durable import Disk

LOCK = "requirements/board.txt"
INSTALLER = "install.sh"
_VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)
_PYTHON = re.compile(r"3\.\d+")
_BEFORE_GIT = 1_577_836_800
"""2020-01-01: the time of files in a checkout that is no repository."""


def build_package(
    name: str, output: Path, *, checkout: Path | None = None, pythons: Sequence[str] = (), revision: int | None = None
) -> Path:
    """Build the package for one of Debian's architectures into a folder, and return where it is.

    Args:
        name: the architecture: amd64, arm64, armhf.
        output: a folder; it is made.
        checkout: the sources; None: those that this module is part of.
        pythons: versions of Python, such as 3.11; none: those of Debian 12 and 13.
        revision: the part of the version after its dash; a package with a higher one is newer.

    Raises FirmwareError, OSError.
    """
    target, checkout = architecture(name), checkout or own_checkout()
    pythons = tuple(dict.fromkeys(pythons)) or target.pythons
    if wrong := [python for python in pythons if not _PYTHON.fullmatch(python)]:
        raise FirmwareError(f"{wrong[0]!r} is no version of Python; it is written as 3.11")
    epoch = build_time(checkout)
    version = _version(checkout) + ("" if revision is None else f"-{revision}")
    with tempfile.TemporaryDirectory(prefix="autoglm-edge-package-") as scratch:
        wheels = _wheels(target, checkout, pythons, epoch, Path(scratch))
        entries = [*system_files(checkout), *modules(wheels)]
    described = Described(version, target, pythons, sum(len(entry.data) for entry in entries))
    packed = pack(control_files(checkout, control_text(described), entries), entries, epoch)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{NAME}_{version}_{name}.deb"
    Disk().commit(path, packed)
    return path


def write_installer(output: Path, checkout: Path | None = None) -> Path:
    """Put the script beside the packages that installs them on a running board; return where it is.

    Raises FirmwareError, OSError.
    """
    path = output / INSTALLER
    Disk().commit(path, ((checkout or own_checkout()) / "firmware_images/debian" / INSTALLER).read_bytes())
    path.chmod(0o755)
    return path


def own_checkout() -> Path:
    """Return the checkout that this module lies in. Raises FirmwareError where it was installed as a wheel."""
    for folder in Path(__file__).resolve().parents:
        if (folder / LOCK).is_file():
            return folder
    raise FirmwareError("the package is built from a checkout of autoglm-edge, and this is none: give its folder")


def build_time(checkout: Path) -> int:
    """Return the time that files of the package get: SOURCE_DATE_EPOCH, or the last commit's. Raises FirmwareError."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None:
        if not given.isdecimal():
            raise FirmwareError(f"SOURCE_DATE_EPOCH is {given!r}; it is a time in seconds since 1970")
        return int(given)
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%ct"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        said = ""
    return int(said) if said.isdecimal() else _BEFORE_GIT


def _version(checkout: Path) -> str:
    found = _VERSION.search((checkout / "agent/pyproject.toml").read_text(encoding="utf-8"))
    if found is None:
        raise FirmwareError(f"{checkout}/agent/pyproject.toml names no version")
    return found[1]


def _wheels(
    target: Architecture, checkout: Path, pythons: Sequence[str], epoch: int, scratch: Path
) -> dict[str, list[Path]]:
    locked = parse_lock((checkout / LOCK).read_text(encoding="utf-8"))
    own = build_own(checkout, scratch / "own", epoch)
    return {
        python: [*own, *download(needed(locked, target, python), target, python, scratch / python)]
        for python in pythons
    }
