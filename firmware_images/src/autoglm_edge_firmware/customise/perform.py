"""Carry out a plan on a card, an image or a folder.

An image file is never changed where it lies: a copy is, and takes its place when it is whole and sound. A card or a
folder is changed as it is; doing it again mends what an interruption left.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_firmware.customise.payload import Payload
from autoglm_edge_firmware.customise.plan import Place, Plan, plan
from autoglm_edge_firmware.customise.system import System, Way, find
from autoglm_edge_firmware.errors import ImageUnusable
from autoglm_edge_firmware.media.compression import compress, kind_for, kind_of
from autoglm_edge_firmware.media.copies import at_hand, copied
from autoglm_edge_firmware.media.ext4 import Ext4Tree
from autoglm_edge_firmware.progress import Progress, silent
from autoglm_edge_firmware.write import disks
from autoglm_edge_protocol.durable import Disk


@dataclass(frozen=True)
class Customised:
    """What was done, and where the result is."""

    path: Path
    system: System
    plan: Plan


def look(existing: Path, payload: Payload, way: Way | None = None) -> Customised:
    """Say what would be done, and change nothing."""
    with at_hand(existing, silent) as image:
        system = find(image)
        return Customised(existing, system, plan(system, payload, way))


def customise(
    existing: Path, payload: Payload, out: Path | None = None, way: Way | None = None, progress: Progress = silent
) -> Customised:
    """Put the payload into an image (at `out`, or in its place), a card, or the folder of a root.

    Raises:
        ImageUnusable: it is no image, of an unknown layout, has no room, or `out` is missing where it is needed.
        SettingRefused: what the image says already cannot be added to.
        CardRefused: the card is in use, or no card.
        ProgramFailed: a program is missing.
    """
    is_card = stat.S_ISBLK(existing.stat().st_mode)
    if is_card or existing.is_dir():
        if out is not None:
            raise ImageUnusable(existing, "changed where it is; --output is for image files")
        if is_card:
            disks.must_be_writable(disks.find(existing), 0)
        return change_in_place(existing, payload, way)
    if out is None and kind_of(existing) != "plain":
        raise ImageUnusable(existing, "compressed: say with --output where the customised image is to be")
    target = out or existing
    with copied(existing, target.parent, progress) as copy:
        done = change_in_place(copy, payload, way)
        finished = copy
        if (kind := kind_for(target)) != "plain":
            progress(f"compressing {target.name}", 0, 0)
            finished = copy.with_name(copy.name + ".packed")
            compress(copy, finished, kind)
        _keep_secret(finished, payload)
        with finished.open("rb+") as file:
            os.fsync(file.fileno())
        Disk().promote(finished, target)
    return Customised(target, done.system, done.plan)


def _keep_secret(image: Path, payload: Payload) -> None:
    if payload.claim or payload.wifi:
        image.chmod(0o600)


def change_in_place(where: Path, payload: Payload, way: Way | None = None) -> Customised:
    """Put the payload into a card, a folder, or an image that is nobody else's, as it lies.

    Raises: as `customise`.
    """
    system = find(where)
    decided = plan(system, payload, way)
    for change in decided.changes:
        tree = system.boot if change.place is Place.BOOT else system.root
        assert tree is not None
        if change.target:
            tree.link(change.file.path, change.target)
        else:
            tree.write(change.file.path, change.file.data, change.file.mode)
    if isinstance(system.root, Ext4Tree) and any(change.place is Place.ROOT for change in decided.changes):
        system.root.check()
    return Customised(where, system, decided)
