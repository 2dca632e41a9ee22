"""Which locked requirements a board needs: pip asks the markers about the machine that it runs on, so we ask them.

The lock is what `make lock` writes: `name==version ; marker` and the hashes of its files on lines that follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement

from autoglm_edge_firmware.errors import FirmwareError
from autoglm_edge_firmware.package.architectures import Architecture


@dataclass(frozen=True)
class Locked:
    """One distribution of one version, and the hashes that its files may have."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]

    def to_line(self) -> str:
        """Return it as a requirement for pip, without its marker."""
        return " ".join((f"{self.name}=={self.version}", *(f"--hash={each}" for each in self.hashes)))


def parse_lock(text: str) -> tuple[Locked, ...]:
    """Return what a lock names. Raises FirmwareError."""
    return tuple(_locked(entry) for entry in _entries(text))


def needed(locked: tuple[Locked, ...], architecture: Architecture, python: str) -> tuple[Locked, ...]:
    """Return what is to be packed for one version of Python, such as 3.11."""
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": architecture.machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    chosen = [entry for entry in locked if entry.name not in architecture.from_debian]
    if "cffi" in architecture.from_debian:
        chosen = [entry for entry in chosen if entry.name != "pycparser"]  # it compiles for cffi, and nothing here does
    return tuple(entry for entry in chosen if _holds(entry, environment))


def _holds(entry: Locked, environment: dict[str, str]) -> bool:
    marker = Requirement(f"{entry.name} ; {entry.marker}").marker if entry.marker else None
    return marker is None or marker.evaluate(environment)


def _entries(text: str) -> Iterator[str]:
    entry = ""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        entry += " " + stripped.removesuffix("\\")
        if not stripped.endswith("\\"):
            yield entry.strip()
            entry = ""
    if entry:
        yield entry.strip()


def _locked(entry: str) -> Locked:
    head, *hashes = entry.split("--hash=")
    try:
        requirement = Requirement(head.strip())
    except InvalidRequirement as error:
        raise FirmwareError(f"the lock has a line that is no requirement: {head.strip()!r}: {error}") from None
    version = next((each.version for each in requirement.specifier if each.operator == "=="), None)
    if version is None or not hashes:
        raise FirmwareError(f"the lock does not lock {requirement.name}: it needs a version and hashes")
    marker = None if requirement.marker is None else str(requirement.marker)
    return Locked(requirement.name.lower(), version, marker, tuple(each.strip() for each in hashes))
