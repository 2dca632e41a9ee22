"""How an image is divided: boot (FAT32), root (ext4) and data (ext4), which is the last and grows. Pure.

Models and state are on the data partition, so that a new root never loses them. The table is an MBR for every board:
the firmware of Raspberry Pi reads no other, and UEFI and U-Boot read it as well.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from autoglm_edge_firmware.media.partitions import FAT32_LBA, LINUX, Partition, Table

MIB = 1 << 20
_FIRST_BYTES = 4 * MIB
"""Cards erase in blocks of up to 4 MiB."""
_SLACK_MIB = 512
_ROUND_MIB = 64
_NAMES = uuid.UUID("7d4f26c0-9d7c-5b0e-8f6a-2f7f6f0a1c11")


@dataclass(frozen=True)
class Identifiers:
    """Those of an image: always the same for a board, and so the same image from the same packages."""

    disk: int
    boot: int
    root: uuid.UUID
    data: uuid.UUID
    hash_seed: uuid.UUID

    def partition(self, number: int) -> str:
        """Return what Linux calls a partition of an MBR."""
        return f"{self.disk:08x}-{number:02x}"


@dataclass(frozen=True)
class Layout:
    """Where everything lies."""

    boot: Partition
    root: Partition
    data: Partition
    identifiers: Identifiers

    @property
    def image_bytes(self) -> int:
        """How large the image is."""
        return self.data.end_bytes

    @property
    def table(self) -> Table:
        """The partition table."""
        return Table((self.boot, self.root, self.data), self.identifiers.disk)


def identifiers(board_name: str) -> Identifiers:
    """Return the identifiers of a board's images."""

    def of(part: str) -> uuid.UUID:
        return uuid.uuid5(_NAMES, f"{board_name}/{part}")

    return Identifiers(of("disk").fields[0], of("boot").fields[0], of("root"), of("data"), of("hash seed"))


def root_mib(content_bytes: int) -> int:
    """Return how large a root is that holds so much and is to be upgraded for years."""
    wanted = content_bytes * 3 // 2 // MIB + _SLACK_MIB
    return -(-wanted // _ROUND_MIB) * _ROUND_MIB


def layout(board_name: str, boot_mib: int, root: int, data_mib: int) -> Layout:
    """Return the layout for partitions of these sizes, in MiB."""
    boot = Partition(1, _FIRST_BYTES, boot_mib * MIB, FAT32_LBA, bootable=True)
    root_part = Partition(2, boot.end_bytes, root * MIB, LINUX)
    data = Partition(3, root_part.end_bytes, data_mib * MIB, LINUX)
    return Layout(boot, root_part, data, identifiers(board_name))
