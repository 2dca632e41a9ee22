"""Write an image to one card or to several at once, each with a claim of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from autoglm_edge_firmware.customise.payload import Payload
from autoglm_edge_firmware.customise.perform import change_in_place
from autoglm_edge_firmware.customise.plan import CLAIM_OF_BOOT, CLAIM_OF_ROOT
from autoglm_edge_firmware.customise.system import find
from autoglm_edge_firmware.errors import FirmwareError, SettingRefused
from autoglm_edge_firmware.media.partitions import SECTOR_BYTES
from autoglm_edge_firmware.media.trees import exists
from autoglm_edge_firmware.progress import Progress, silent
from autoglm_edge_firmware.write import card, copying
from autoglm_edge_firmware.write.claim_folder import Claims, Taken
from autoglm_edge_firmware.write.copying import Source
from autoglm_edge_firmware.write.disks import Disk, must_be_writable
from autoglm_edge_protocol.claims import Claim

_EJECT_S = 30.0


@dataclass(frozen=True)
class Result:
    """How a card ended: `problem` is empty where all is well."""

    disk: Disk
    written_bytes: int = 0
    claim_id: str = ""
    problem: str = ""


def write_card(source: Source, disk: Disk, progress: Progress = silent) -> int:
    """Write a card, verify it, and return how many bytes were written.

    Raises:
        CardRefused, ImageUnusable: it could not be done.
    """
    must_be_writable(disk, source.image_bytes or 0)
    with card.opened(disk.path) as opened:
        return copying.write(source, opened, disk.path, progress)


def give_claim(disk: Disk, claim: Claim) -> None:
    """Put a claim onto a card that was written: from here on it differs from every other.

    Raises:
        CardRefused, ImageUnusable: it could not be done.
    """
    change_in_place(disk.path, Payload(claim=claim))
    with card.opened(disk.path) as opened:
        opened.settle()


def write_cards(
    source: Source, disks: Sequence[Disk], claims: Claims | None, progress_of: Callable[[Disk], Progress]
) -> list[Result]:
    """Write several cards side by side; one that fails does not hold up the others.

    Raises:
        SettingRefused: there are fewer claims than cards. Nothing was written then.
    """
    taken: list[Taken | None] = []
    try:
        for _ in disks:
            taken.append(claims.take() if claims else None)
    except FirmwareError:
        for each in taken:
            _put_back(each)
        raise

    def one(disk: Disk, mine: Taken | None) -> Result:
        try:
            written = write_card(source, disk, progress_of(disk))
            if mine is None and len(disks) > 1:
                _must_be_anyones(disk)
        except (FirmwareError, OSError) as error:
            _put_back(mine)
            return Result(disk, problem=str(error))
        if mine is None:
            return Result(disk, written)
        try:
            give_claim(disk, mine.claim)
        except (FirmwareError, OSError) as error:
            # It may be on the card by now, and so is nobody else's any more.
            return Result(disk, written, problem=f"{error}; the claim {mine.claim.claim_id} is not used again")
        return Result(disk, written, mine.claim.claim_id)

    with ThreadPoolExecutor(max_workers=len(disks) or 1) as workers:
        return list(workers.map(one, disks, taken))


def _must_be_anyones(disk: Disk) -> None:
    """Refuse to leave one claim on several cards."""
    system = find(disk.path)
    places = ((system.boot, CLAIM_OF_BOOT), (system.root, CLAIM_OF_ROOT))
    if any(tree is not None and exists(tree, path) for tree, path in places):
        with card.opened(disk.path) as opened:
            opened.write_at(0, bytes(SECTOR_BYTES))
        raise SettingRefused("the image carries a claim, which is one board's: give each card its own with --claims")


def _put_back(taken: Taken | None) -> None:
    if taken is not None:
        taken.put_back()


def eject(disk: Disk) -> bool:
    """Let go of a card, so that it may be pulled out; whether that could be said to it."""
    for command in (["udisksctl", "power-off", "--block-device"], ["eject"]):
        if disk.kind == "disk" and shutil.which(command[0]):
            with suppress(subprocess.TimeoutExpired):
                ended = subprocess.run([*command, str(disk.path)], capture_output=True, check=False, timeout=_EJECT_S)
                if ended.returncode == 0:
                    return True
    return False
