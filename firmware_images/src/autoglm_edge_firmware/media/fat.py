"""A FAT partition of a card or image as a tree, by mtools: nothing is mounted."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from autoglm_edge_firmware.errors import ImageUnusable, ProgramFailed
from autoglm_edge_firmware.programs import run

_MISSING = ("not found", "no match for target", "no such file", "non existent")
_FULL = ("disk full", "no space")
_FREE = 0
_MASK = 0x0FFFFFFF


class FatTree:
    """The FAT file system that begins `offset_bytes` into `image`."""

    def __init__(self, image: Path, offset_bytes: int) -> None:
        self._image = image
        self._at = f"{image}@@{offset_bytes}"

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        try:
            return run("mtype", "-i", self._at, f"::{path}")
        except ProgramFailed as error:
            if _says(error, _MISSING) or "is a directory" in error.problem:
                return None
            raise ImageUnusable(self._image, f"its boot partition cannot be read ({error.problem})") from None

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder."""
        try:
            listed = run("mdir", "-a", "-b", "-i", self._at, f"::{path}").decode(errors="replace")
        except ProgramFailed as error:
            if _says(error, _MISSING):
                return ()
            raise ImageUnusable(self._image, f"its boot partition cannot be read ({error.problem})") from None
        paths = (PurePosixPath(line.removeprefix("::").rstrip("/")) for line in listed.splitlines() if line)
        return tuple(sorted(each.name for each in paths if each.name and str(each) != path))

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Make a file. FAT keeps neither modes nor owners: who mounts it says who may read it."""
        try:
            self._make_folder(str(PurePosixPath(path).parent))
            run("mcopy", "-o", "-i", self._at, "-", f"::{path}", given=data)
        except ProgramFailed as error:
            if _says(error, _FULL):
                raise ImageUnusable(self._image, f"its boot partition has no room for {path}") from None
            raise ImageUnusable(self._image, f"{path} cannot be put on its boot partition ({error.problem})") from None
        if self.read(path) != data:
            raise ImageUnusable(self._image, f"its boot partition has no room for {path}")

    def _make_folder(self, path: str) -> None:
        folder = PurePosixPath(path)
        if path == "/" or folder.name in self.names(str(folder.parent)):
            return
        self._make_folder(str(folder.parent))
        run("mmd", "-i", self._at, f"::{path}")

    def link(self, path: str, target: str) -> None:
        """FAT has no links."""
        raise ImageUnusable(self._image, f"{path} -> {target}: a FAT partition holds no links")

    def remove(self, path: str) -> None:
        """Remove a file."""
        if self.read(path) is not None:
            run("mdel", "-i", self._at, f"::{path}")


def _says(error: ProgramFailed, words: tuple[str, ...]) -> bool:
    return any(word in error.problem.lower() for word in words)


def used_bytes(image: Path, offset_bytes: int) -> int:
    """Return how much of a FAT32 file system lies before the last cluster in use: the rest need not be written."""
    with image.open("rb") as file:
        file.seek(offset_bytes)
        boot = file.read(512)
        sector_bytes, cluster_sectors, reserved, tables = struct.unpack_from("<HBHB", boot, 11)
        (table_sectors,) = struct.unpack_from("<I", boot, 36)
        file.seek(offset_bytes + reserved * sector_bytes)
        table = file.read(table_sectors * sector_bytes)
    last = max(_in_use(table))
    data = (reserved + tables * table_sectors) * sector_bytes
    # The first two entries of the table are no clusters.
    return int(data + (last - 1) * cluster_sectors * sector_bytes)


def _in_use(table: bytes) -> Iterator[int]:
    for number, (entry,) in enumerate(struct.iter_unpack("<I", table)):
        if entry & _MASK != _FREE:
            yield number
