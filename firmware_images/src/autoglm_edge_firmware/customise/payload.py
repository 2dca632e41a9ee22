"""What is put onto a card for its first boot, as files below one folder. Pure, but for reading what was given.

The folder is `autoglm-edge` of the boot partition where there is one that the system mounts, else one of the root.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import zstandard

from autoglm_edge_firmware.errors import SettingRefused
from autoglm_edge_firmware.settings.wifi import Wifi, for_netplan, for_network_manager, for_wpa_supplicant
from autoglm_edge_protocol.claims import Claim

FOLDER_OF_ROOT = "/usr/local/lib/autoglm-edge-install"
UNIT = "autoglm-edge-install.service"
_PREFIX = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


@dataclass(frozen=True)
class Package:
    """The agent's Debian package."""

    name: str
    version: str
    architecture: str
    data: bytes = field(repr=False)

    @property
    def file_name(self) -> str:
        """What its file is called on the card."""
        return f"{self.name}_{self.version}_{self.architecture}.deb"


@dataclass(frozen=True)
class Payload:
    """What a card is to get."""

    package: Package | None = None
    claim: Claim | None = None
    wifi: Wifi | None = None
    name_prefix: str = ""

    def __post_init__(self) -> None:
        if self.name_prefix and not _PREFIX.fullmatch(self.name_prefix):
            raise SettingRefused(
                f"{self.name_prefix!r} cannot begin a host name: lower-case letters, digits, inner hyphens, at most 40"
            )
        if not (self.package or self.claim or self.wifi or self.name_prefix):
            raise SettingRefused("nothing to put onto the card: give a package, a claim, a network or a name")


@dataclass(frozen=True)
class File:
    """A file that is to be written. Its bytes are not shown: they may be a secret."""

    path: str
    data: bytes = field(repr=False)
    mode: int = 0o644


def board_file(name: str) -> bytes:
    """Return a file that this distribution has for boards."""
    return (files("autoglm_edge_firmware") / "board" / name).read_bytes()


def contents(payload: Payload, folder: str) -> tuple[File, ...]:
    """Return the files of the folder, in the order in which they are written: what starts the rest comes last."""
    found: list[File] = []
    if payload.package:
        found.append(File(f"{folder}/{payload.package.file_name}", payload.package.data))
    if payload.name_prefix:
        found.append(File(f"{folder}/name-prefix", f"{payload.name_prefix}\n".encode()))
    if payload.wifi:
        found += _wifi(payload.wifi, f"{folder}/wifi")
    found.append(File(f"{folder}/install.sh", board_file("install.sh"), 0o755))
    return tuple(found)


def _wifi(wifi: Wifi, folder: str) -> list[File]:
    texts = {
        "autoglm-edge.nmconnection": for_network_manager(wifi),
        "netplan.yaml": for_netplan(wifi),
        "wpa_supplicant.conf": for_wpa_supplicant(wifi),
        "country": wifi.country,
    }
    return [File(f"{folder}/{name}", text.encode(), 0o600) for name, text in texts.items() if text]


def unit(folder: str) -> bytes:
    """Return the unit that installs from this folder of the running board."""
    return board_file(UNIT).replace(b"@FOLDER@", folder.encode())


def read_package(path: Path) -> Package:
    """Read a Debian package.

    Raises:
        SettingRefused: it is none.
    """
    data = path.read_bytes()
    try:
        control = _control(data)
        name, version, architecture = (
            re.search(rf"^{key}: (\S+)$", control, re.MULTILINE)[1]  # type: ignore[index]
            for key in ("Package", "Version", "Architecture")
        )
    except (ValueError, KeyError, TypeError, StopIteration, tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise SettingRefused(f"{path}: not a Debian package ({error})") from None
    return Package(name, version, architecture, data)


def _control(data: bytes) -> str:
    for name, member in _members(data):
        if name.startswith("control.tar"):
            packed = name.endswith(".zst")
            tar = zstandard.ZstdDecompressor().stream_reader(member).read() if packed else member
            with tarfile.open(fileobj=BytesIO(tar)) as archive:
                found = next(each for each in archive if each.name.removeprefix("./") == "control")
                file = archive.extractfile(found)
                assert file is not None
                return file.read().decode()
    raise ValueError("it has no control file")


def _members(data: bytes) -> list[tuple[str, bytes]]:
    """Return the members of an `ar` archive (deb(5))."""
    if not data.startswith(_AR_MAGIC):
        raise ValueError("no `ar` archive")
    found, at = [], len(_AR_MAGIC)
    while at + _AR_HEADER_BYTES <= len(data):
        header = data[at : at + _AR_HEADER_BYTES]
        size = int(header[48:58])
        at += _AR_HEADER_BYTES
        if at + size > len(data):
            raise ValueError("cut short")
        found.append((header[:16].decode("ascii").strip().rstrip("/"), data[at : at + size]))
        at += size + size % 2
    return found
