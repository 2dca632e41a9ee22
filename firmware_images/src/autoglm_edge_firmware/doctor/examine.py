"""Look into the file systems of a card or image and say what was found."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoglm_edge_firmware.customise.plan import CLAIM_OF_BOOT, CLAIM_OF_ROOT
from autoglm_edge_firmware.doctor.findings import Bundles, ClaimSeen, Examination, IdentitySeen, PartitionSeen
from autoglm_edge_firmware.errors import ImageUnusable
from autoglm_edge_firmware.media.copies import at_hand
from autoglm_edge_firmware.media.ext4 import Ext4Tree
from autoglm_edge_firmware.media.opened import Medium, Volume, open_medium
from autoglm_edge_firmware.media.trees import FolderTree, Tree, exists, text
from autoglm_edge_firmware.package.control import NAME
from autoglm_edge_firmware.progress import Progress, silent
from autoglm_edge_protocol.claims import read_claim
from autoglm_edge_protocol.errors import ProtocolError

STATE = "/var/lib/autoglm-edge"
_PACKAGE = re.compile(rf"{NAME}_([^_]+)_[^_]+\.deb")
_FOLDERS = ("/autoglm-edge", "/usr/local/lib/autoglm-edge-install")
NOT_UNMOUNTED = "not unmounted: the next boot plays its journal back, until then some of it may be older"
_FINE = ("", "sound", NOT_UNMOUNTED)
_UNINITIALISED = ("", "uninitialized")


def examine(existing: Path, now: float | None = None, progress: Progress = silent) -> Examination:
    """Say what is on a card, in an image (a compressed one too) or in the folder of a root.

    Raises:
        ImageUnusable: it is no image, or cut short.
        ProgramFailed: a program is missing.
    """
    at = time.time() if now is None else now
    if existing.is_dir():
        return _examined(existing, None, (FolderTree(existing),), (), at)
    with at_hand(existing, progress) as path:
        medium = open_medium(path)
        partitions = tuple(_seen(volume) for volume in medium.volumes)
        return _examined(existing, medium, tuple(_trees(medium)), partitions, at)


def _trees(medium: Medium) -> Iterator[Tree]:
    for volume in medium.volumes:
        if volume.tree is not None:
            with suppress(ImageUnusable):  # a damaged one is told of by its partition
                volume.tree.names("/")
                yield volume.tree


def _seen(volume: Volume) -> PartitionSeen:
    partition = volume.partition
    return PartitionSeen(
        partition.number, partition.start_bytes, partition.size_bytes, volume.file_system, _state(volume)
    )


def _state(volume: Volume) -> str:
    try:
        if isinstance(volume.tree, Ext4Tree):
            if volume.tree.size_bytes() > volume.partition.size_bytes:
                return "larger than its partition"
            if not volume.tree.is_at_rest:
                return NOT_UNMOUNTED
            volume.tree.check()
        elif volume.tree is not None:
            volume.tree.names("/")
    except ImageUnusable as error:
        return error.problem
    return "sound" if volume.tree is not None else ""


def _examined(
    path: Path, medium: Medium | None, trees: tuple[Tree, ...], partitions: tuple[PartitionSeen, ...], now: float
) -> Examination:
    root = next((tree for tree in trees if exists(tree, "/etc/os-release") or exists(tree, "/etc/fstab")), None)
    release, status = (text(root, name) if root else "" for name in ("/etc/os-release", "/var/lib/dpkg/status"))
    installed = _version_installed(status)
    claim = _claim(trees, now)
    identity, bundles = _identity(trees, root), _bundles(trees, root)
    problems = [f"partition {each.number}: {each.state}" for each in partitions if each.state not in _FINE]
    if claim and claim.expired and identity is None:
        problems.append(f"the claim {claim.claim_id} expired before it was used: write another onto the card")
    if root is None:
        problems.append("no system whose root can be looked into")
    return Examination(
        str(path),
        medium.size_bytes if medium else 0,
        medium.table.scheme if medium else "folder",
        partitions,
        _field(release, r'PRETTY_NAME="?([^"\n]*)'),
        _field(status, r"(?:^|\n)Package: dpkg\n(?:[^\n]+\n)*?Architecture: (\S+)"),
        text(root, "/etc/hostname").strip() if root else "",
        bool(root) and text(root, "/etc/machine-id").strip() not in _UNINITIALISED if root else False,
        installed or _version_waiting(trees),
        bool(installed),
        claim,
        identity,
        bundles,
        tuple(problems),
    )


def _field(document: str, pattern: str) -> str:
    found = re.search(pattern, document)
    return found[1] if found else ""


def _version_installed(status: str) -> str:
    for stanza in status.split("\n\n"):
        if re.match(rf"\s*Package: {NAME}\n", stanza) and "Status: install ok installed" in stanza:
            return _field(stanza, r"\nVersion: (\S+)")
    return ""


def _version_waiting(trees: tuple[Tree, ...]) -> str:
    names = [name for tree in trees for folder in _FOLDERS for name in tree.names(folder)]
    return next((found[1] for name in names if (found := _PACKAGE.fullmatch(name))), "")


def _claim(trees: tuple[Tree, ...], now: float) -> ClaimSeen | None:
    for tree in trees:
        for place in (CLAIM_OF_BOOT, CLAIM_OF_ROOT):
            data = tree.read(place)
            if data is None:
                continue
            with suppress(ProtocolError):
                claim = read_claim(data)
                return ClaimSeen(place, claim.fleet, claim.claim_id, claim.expires_at, now > claim.expires_at)
    return None


def _states(trees: tuple[Tree, ...], root: Tree | None) -> Iterator[tuple[Tree, str]]:
    """Give where the agent's state may be: on a partition of its own, or in the root."""
    for tree in trees:
        if tree is root:
            yield tree, STATE
        else:
            yield tree, ""


def _document(trees: tuple[Tree, ...], root: Tree | None, name: str) -> dict[str, Any] | None:
    for tree, folder in _states(trees, root):
        with suppress(ValueError, UnicodeDecodeError):
            value = json.loads(tree.read(f"{folder}/{name}") or b"")
            if isinstance(value, dict):
                return value
    return None


def _identity(trees: tuple[Tree, ...], root: Tree | None) -> IdentitySeen | None:
    found = _document(trees, root, "identity/identity.json")
    if found is None:
        return None
    return IdentitySeen(*(str(found.get(name, "")) for name in ("fleet", "device", "claim_id")))


def _bundles(trees: tuple[Tree, ...], root: Tree | None) -> Bundles | None:
    found = _document(trees, root, "slots.json")
    if found is None:
        return None
    current, previous, staging = (_slot(found.get(name)) for name in ("current", "previous", "staging"))
    return Bundles(current, previous, staging, bool(found.get("unproven")))


def _slot(value: Any) -> str | None:
    try:
        return f"{value['bundle']['name']}@{value['bundle']['version']} ({value['variant']})"
    except (KeyError, TypeError):
        return None
