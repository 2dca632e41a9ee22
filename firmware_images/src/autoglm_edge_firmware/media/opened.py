"""A card or an uncompressed image, opened by what is found in it: its partitions and their file systems."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_firmware.errors import ImageUnusable
from autoglm_edge_firmware.media import ext4, partitions
from autoglm_edge_firmware.media.compression import kind_of
from autoglm_edge_firmware.media.ext4 import Ext4Tree
from autoglm_edge_firmware.media.fat import FatTree
from autoglm_edge_firmware.media.partitions import Partition, Table

_SIGNATURE_BYTES = 4096
_FAT_NAMES = (b"FAT32   ", b"FAT16   ", b"FAT12   ")


@dataclass(frozen=True)
class Volume:
    """A partition and the file system in it; `tree` is None where it is another than FAT or ext4."""

    partition: Partition
    file_system: str
    tree: FatTree | Ext4Tree | None


@dataclass(frozen=True)
class Medium:
    """A card or image."""

    path: Path
    size_bytes: int
    table: Table
    volumes: tuple[Volume, ...]

    def fats(self) -> tuple[FatTree, ...]:
        """Return the FAT file systems."""
        return tuple(each.tree for each in self.volumes if isinstance(each.tree, FatTree))

    def exts(self) -> tuple[Ext4Tree, ...]:
        """Return the ext4 file systems."""
        return tuple(each.tree for each in self.volumes if isinstance(each.tree, Ext4Tree))


def size_of(path: Path) -> int:
    """Return the size of a file or of a card."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def open_medium(path: Path) -> Medium:
    """Look at a card or an uncompressed image.

    Raises:
        ImageUnusable: it is compressed, no image, or shorter than its partitions.
    """
    size_bytes = size_of(path)
    if size_bytes == 0:
        raise ImageUnusable(path, "empty, or a reader without a card")
    if (kind := kind_of(path)) != "plain":
        raise ImageUnusable(path, f"compressed with {kind}: give it where compressed images are taken, or unpack it")
    with path.open("rb") as file:
        head = file.read(partitions.TABLE_BYTES)
    try:
        table = partitions.parse(head)
    except partitions.NoTable as error:
        raise ImageUnusable(path, str(error)) from None
    for partition in table.partitions:
        if partition.end_bytes > size_bytes:
            raise ImageUnusable(
                path,
                f"cut short: {size_bytes} bytes, but partition {partition.number} ends at {partition.end_bytes}; "
                "fetch or copy it again",
            )
    return Medium(path, size_bytes, table, tuple(_volume(path, each) for each in table.partitions))


def _volume(path: Path, partition: Partition) -> Volume:
    with path.open("rb") as file:
        file.seek(partition.start_bytes)
        start = file.read(_SIGNATURE_BYTES)
    if start[ext4.MAGIC_AT :].startswith(ext4.MAGIC):
        return Volume(partition, "ext4", Ext4Tree(path, partition.start_bytes))
    if start[82:90] in _FAT_NAMES or start[54:62] in _FAT_NAMES:
        return Volume(partition, "fat", FatTree(path, partition.start_bytes))
    return Volume(partition, "unknown", None)
