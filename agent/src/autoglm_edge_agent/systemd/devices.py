"""Which devices the unit of the agent opens: those that the board's accelerators need, and no other.

The package has a drop-in for each kind; those of what was found are linked into the unit's folder. The groups that own
the nodes differ from system to system and may not exist at all, so they are read from the nodes themselves.
"""

from __future__ import annotations

import contextlib
import grp
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoglm_edge_agent.doctor.accelerators import Accelerator, accelerators
from autoglm_edge_agent.doctor.tree import Tree

DROP_INS = Path("/usr/share/autoglm-edge/devices")
GROUPS = "60-autoglm-edge-groups.conf"
_PREFIX = "50-autoglm-edge-"
_KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Coral Edge TPU (PCIe)", "coral-pcie", ("dev/apex_*",)),
    ("Coral Edge TPU (USB)", "coral-usb", ("dev/bus/usb/*/*",)),
    ("Hailo", "hailo", ("dev/hailo*",)),
    ("Jetson", "jetson", ("dev/nvhost-*", "dev/nvmap", "dev/nvgpu/*/*", "dev/dri/renderD*")),
)
"""How the name of an accelerator begins, its drop-in, and its nodes."""


def drop_ins_for(found: Sequence[Accelerator]) -> tuple[str, ...]:
    """Return the names of the drop-ins that these accelerators need."""
    return tuple(name for start, name, _ in _KINDS if any(each.name.startswith(start) for each in found))


def drop_ins_of(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the names of the drop-ins that a board needs whose files are below a folder."""
    system = os.uname()
    return drop_ins_for(accelerators(Tree(root), system.sysname, system.machine))


def node_groups(names: Iterable[str], root: Path = Path("/")) -> tuple[str, ...]:
    """Return the groups without which the nodes of these drop-ins cannot be written."""
    groups = set()
    for _, name, patterns in _KINDS:
        if name not in names:
            continue
        for node in (node for pattern in patterns for node in root.glob(pattern)):
            status = node.stat()
            if status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_IWOTH and status.st_gid != 0:
                with contextlib.suppress(KeyError):
                    groups.add(grp.getgrgid(status.st_gid).gr_name)
    return tuple(sorted(groups))


def link(folder: Path, names: Sequence[str], groups: Sequence[str], source: Path = DROP_INS) -> bool:
    """Let the folder of a unit have these drop-ins of ours and no others; returns whether it changed.

    Raises OSError.
    """
    wanted = {f"{_PREFIX}{name}.conf": source / f"{name}.conf" for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name: path.readlink() for path in folder.glob(f"{_PREFIX}*.conf") if path.is_symlink()}
    for name in there.keys() - wanted.keys():
        (folder / name).unlink()
    for name, target in wanted.items():
        if there.get(name) != target:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
    return _write_groups(folder / GROUPS, groups) or there != wanted


def _write_groups(path: Path, groups: Sequence[str]) -> bool:
    text = f"[Service]\nSupplementaryGroups={' '.join(groups)}\n" if groups else ""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if text == before:
        return False
    if text:
        path.write_text(text, encoding="utf-8")
    else:
        path.unlink()
    return True
