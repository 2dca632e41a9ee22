"""What customising a system does to it: every file and link, decided before the first of them is written. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from autoglm_edge_firmware.customise import hooks
from autoglm_edge_firmware.customise.payload import FOLDER_OF_ROOT, UNIT, File, Payload, board_file, contents, unit
from autoglm_edge_firmware.customise.system import BOOT_MOUNTS, System, Way
from autoglm_edge_firmware.errors import ImageUnusable, SettingRefused
from autoglm_edge_firmware.media.trees import Tree, text
from autoglm_edge_firmware.settings.claim import for_board

CLAIM_OF_ROOT = "/etc/autoglm-edge/claim.json"
CLAIM_OF_BOOT = f"/{hooks.FOLDER}/claim.json"
_WANTED = "/etc/systemd/system/multi-user.target.wants"


class Place(enum.StrEnum):
    """Where a file goes."""

    BOOT = "boot"
    ROOT = "root"


@dataclass(frozen=True)
class Change:
    """A file to write, or a link where `target` is given."""

    place: Place
    file: File
    target: str = ""

    def __str__(self) -> str:
        what = f"-> {self.target}" if self.target else f"{len(self.file.data)} bytes, mode {self.file.mode:04o}"
        return f"{self.place:4}  {self.file.path}  {what}"


@dataclass(frozen=True)
class Plan:
    """What is done to a system, in this order."""

    way: Way
    changes: tuple[Change, ...]

    def lines(self) -> tuple[str, ...]:
        """Return the plan for people: no secret is in it."""
        return (f"way   {self.way}", *(str(change) for change in self.changes))


def plan(system: System, payload: Payload, way: Way | None = None) -> Plan:
    """Decide what is written where.

    Raises:
        ImageUnusable: the way is not one of this system, or the package is for another.
        SettingRefused: what the image says already cannot be added to.
    """
    chosen = way or system.ways[0]
    if chosen not in system.ways:
        raise ImageUnusable(system.where, f"cannot be told by {chosen}, only by {', '.join(system.ways)}")
    package = payload.package
    if package and system.architecture and package.architecture not in (system.architecture, "all"):
        raise ImageUnusable(
            system.where, f"a system for {system.architecture}, but the package is for {package.architecture}"
        )
    if not (package or payload.wifi or payload.name_prefix):
        return Plan(chosen, (_claim(system, payload),))
    if chosen is Way.UNIT:
        return Plan(chosen, tuple(_by_unit(system, payload)))
    assert system.boot is not None
    return Plan(chosen, tuple(_by_boot(system.boot, system.boot_mount, payload, chosen)))


def _claim(system: System, payload: Payload) -> Change:
    assert payload.claim is not None
    if system.boot is not None:
        return Change(Place.BOOT, File(CLAIM_OF_BOOT, for_board(payload.claim, payload.name_prefix), 0o600))
    return Change(Place.ROOT, File(CLAIM_OF_ROOT, for_board(payload.claim, payload.name_prefix), 0o600))


def _by_unit(system: System, payload: Payload) -> list[Change]:
    changes = [Change(Place.ROOT, each) for each in contents(payload, FOLDER_OF_ROOT)]
    if payload.claim:
        changes.append(_claim(system, payload))
    changes.append(Change(Place.ROOT, File(f"/etc/systemd/system/{UNIT}", unit(FOLDER_OF_ROOT))))
    # The link last: without it nothing is begun.
    changes.append(Change(Place.ROOT, File(f"{_WANTED}/{UNIT}", b""), f"/etc/systemd/system/{UNIT}"))
    return changes


def _by_boot(boot: Tree, mount: str, payload: Payload, way: Way) -> list[Change]:
    if mount not in BOOT_MOUNTS:
        raise SettingRefused(
            f"the system mounts its boot partition at {mount}, only {' and '.join(BOOT_MOUNTS)} are known"
        )
    found = list(contents(payload, f"/{hooks.FOLDER}"))
    found.append(File(f"/{hooks.FOLDER}/{UNIT}", board_file(UNIT)))
    found.append(File(f"/{hooks.FOLDER}/begin.sh", board_file("begin.sh"), 0o755))
    if payload.claim:
        found.append(File(CLAIM_OF_BOOT, for_board(payload.claim, payload.name_prefix), 0o600))
    found += _told(boot, mount, way)
    return [Change(Place.BOOT, each) for each in found]


def _told(boot: Tree, mount: str, way: Way) -> list[File]:
    def now(name: str) -> str | None:
        data = boot.read(f"/{name}")
        return None if data is None else data.decode()

    try:
        if way is Way.PRESEED:
            return [File("/rpi-preseed.toml", hooks.preseed(now("rpi-preseed.toml")).encode())]
        if way is Way.CLOUD_INIT:
            return [
                File("/meta-data", hooks.meta_data(now("meta-data")).encode()),
                File("/user-data", hooks.user_data(now("user-data") or "").encode()),
            ]
        return [
            File("/firstrun.sh", hooks.firstrun(now("firstrun.sh"), mount).encode(), 0o755),
            File("/cmdline.txt", hooks.command_line(text(boot, "/cmdline.txt"), mount).encode()),
        ]
    except UnicodeDecodeError as error:
        raise SettingRefused(f"what the image says for its first boot is no text ({error.reason})") from None
