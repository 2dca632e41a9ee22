"""Partition tables, read and written as bytes: the MBR that boards' firmware knows, and GPT for reading.

Pure: what reads the card is `media.opened`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

SECTOR_BYTES = 512
TABLE_BYTES = 34 * SECTOR_BYTES
"""What must be read to know a table: the MBR, and GPT's header and its 128 entries."""

FAT32_LBA = 0x0C
LINUX = 0x83
_PROTECTIVE = 0xEE
_EXTENDED = {0x05, 0x0F, 0x85}
_MBR_ENTRIES = 446
_MBR_IDENTIFIER = 440
_MAGIC = b"\x55\xaa"
_GPT_MAGIC = b"EFI PART"
_ENTRY_BYTES = 16
# CHS addresses are not used by anybody who boots by LBA; these are the values that sfdisk writes for "too far".
_FAR = b"\xfe\xff\xff"


@dataclass(frozen=True)
class Partition:
    """One partition. Its number is that of the table, from 1."""

    number: int
    start_bytes: int
    size_bytes: int
    kind: int = LINUX
    bootable: bool = False

    @property
    def end_bytes(self) -> int:
        """The first byte after it."""
        return self.start_bytes + self.size_bytes


@dataclass(frozen=True)
class Table:
    """A partition table. Of a GPT, the kinds of partitions are not kept."""

    partitions: tuple[Partition, ...]
    identifier: int = 0
    scheme: str = "mbr"


class NoTable(ValueError):
    """The bytes hold no partition table. Its text says why."""


def parse(head: bytes) -> Table:
    """Read the table from the first `TABLE_BYTES` of a card or image.

    Raises:
        NoTable: there is none, or it contradicts itself.
    """
    if len(head) < SECTOR_BYTES or head[510:512] != _MAGIC:
        raise NoTable("no partition table: not an image of a card")
    entries = [_mbr_entry(head, index) for index in range(4)]
    found = tuple(entry for entry in entries if entry is not None)
    if any(entry.kind == _PROTECTIVE for entry in found):
        return _gpt(head)
    if not found:
        raise NoTable("an empty partition table")
    if any(entry.kind in _EXTENDED for entry in found):
        raise NoTable("a partition table with extended partitions, which are not known here")
    _must_be_apart(found)
    return Table(found, struct.unpack_from("<I", head, _MBR_IDENTIFIER)[0])


def _mbr_entry(head: bytes, index: int) -> Partition | None:
    status, _, kind, _, start, sectors = struct.unpack_from("<B3sB3sII", head, _MBR_ENTRIES + index * _ENTRY_BYTES)
    if status not in (0, 0x80):
        # A FAT boot sector has the magic too, and code where a table has its entries.
        raise NoTable("no partition table: one file system, or not an image of a card")
    if kind == 0 or sectors == 0:
        return None
    return Partition(index + 1, start * SECTOR_BYTES, sectors * SECTOR_BYTES, kind, status == 0x80)


def _gpt(head: bytes) -> Table:
    header = head[SECTOR_BYTES : 2 * SECTOR_BYTES]
    if header[:8] != _GPT_MAGIC:
        raise NoTable("a GPT without its header")
    first, count, size = struct.unpack_from("<QII", header, 72)
    if first != 2 or size < 128 or not 0 < count <= 128:
        raise NoTable("a GPT of an unknown shape")
    found = []
    for index in range(count):
        entry = head[2 * SECTOR_BYTES + index * size :][:size]
        if len(entry) < 128 or not any(entry[:16]):
            continue
        start, end = struct.unpack_from("<QQ", entry, 32)
        if end < start:
            raise NoTable(f"a GPT whose partition {index + 1} ends before it begins")
        found.append(Partition(index + 1, start * SECTOR_BYTES, (end - start + 1) * SECTOR_BYTES))
    if not found:
        raise NoTable("an empty partition table")
    _must_be_apart(tuple(found))
    return Table(tuple(found), scheme="gpt")


def _must_be_apart(partitions: tuple[Partition, ...]) -> None:
    ordered = sorted(partitions, key=lambda each: each.start_bytes)
    for before, after in pairwise(ordered):
        if after.start_bytes < before.end_bytes:
            raise NoTable(f"partitions {before.number} and {after.number} overlap")


def write(table: Table) -> bytes:
    """Return the first sector of a card that has this table, as an MBR."""
    sector = bytearray(SECTOR_BYTES)
    struct.pack_into("<I", sector, _MBR_IDENTIFIER, table.identifier)
    for entry in table.partitions:
        struct.pack_into(
            "<B3sB3sII",
            sector,
            _MBR_ENTRIES + (entry.number - 1) * _ENTRY_BYTES,
            0x80 if entry.bootable else 0,
            _FAR,
            entry.kind,
            _FAR,
            entry.start_bytes // SECTOR_BYTES,
            entry.size_bytes // SECTOR_BYTES,
        )
    sector[510:512] = _MAGIC
    return bytes(sector)
