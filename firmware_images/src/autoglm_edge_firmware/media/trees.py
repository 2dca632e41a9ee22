"""A file system as a tree of files, whatever it lies in: a FAT or ext4 partition of an image, or a folder.

Paths are absolute within the tree, `/etc/hostname`.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath
from typing import Protocol

from autoglm_edge_firmware.errors import ImageUnusable


class Tree(Protocol):
    """Files that can be read and written without mounting anything."""

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder, sorted; none where there is no such folder."""

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Make a file, with the folders above it, or put new bytes into it. Its owner is root."""

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link that says `target`, in the place of what was there. FAT has none."""

    def remove(self, path: str) -> None:
        """Remove a file; that it is missing is no error."""


def exists(tree: Tree, path: str) -> bool:
    """Whether there is something of this name."""
    parent = PurePosixPath(path)
    return parent.name in tree.names(str(parent.parent))


def text(tree: Tree, path: str) -> str:
    """Return a file as text, empty where there is none."""
    return (tree.read(path) or b"").decode(errors="replace")


class FolderTree:
    """A folder of this machine, such as the `rootfs` of NVIDIA's Linux_for_Tegra."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _at(self, path: str) -> Path:
        # The links of a root lead within that root, `/etc/resolv.conf` not to this machine's.
        at = self._root
        for name in PurePosixPath(path).parts[1:]:
            at = at / name
            if name == "..":
                raise ImageUnusable(self._root, f"{path} leads out of it")
            for _ in range(8):
                if not at.is_symlink():
                    break
                target = at.readlink()
                at = self._root / target.relative_to("/") if target.is_absolute() else at.parent / target
            if not at.resolve().is_relative_to(self._root.resolve()):
                raise ImageUnusable(self._root, f"{path} leads out of it")
        return at

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        at = self._at(path)
        return at.read_bytes() if at.is_file() else None

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder."""
        at = self._at(path)
        return tuple(sorted(entry.name for entry in at.iterdir())) if at.is_dir() else ()

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Make a file."""
        at = self._at(path)
        at.parent.mkdir(parents=True, exist_ok=True)
        # Never for a moment readable by others where it is a secret.
        at.touch(mode=mode)
        at.chmod(mode)
        at.write_bytes(data)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        parent = PurePosixPath(path)
        at = self._at(str(parent.parent)) / parent.name
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)
        at.symlink_to(target)

    def remove(self, path: str) -> None:
        """Remove a file."""
        parent = PurePosixPath(path)
        (self._at(str(parent.parent)) / parent.name).unlink(missing_ok=True)

    def mode(self, path: str) -> int:
        """Return the permissions of a file."""
        return stat.S_IMODE(self._at(path).stat().st_mode)
