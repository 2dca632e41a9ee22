"""Put file systems into an image file, without mounting any: mkfs.vfat and mtools, mke2fs and debugfs.

Everything that these tools would take from the clock or from chance is given, so that the same files make the same
bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from uuid import UUID

from autoglm_edge_firmware.errors import FirmwareError, ProgramFailed
from autoglm_edge_firmware.image.layout import Layout
from autoglm_edge_firmware.media import block_map, fat, partitions
from autoglm_edge_firmware.media.block_map import BlockMap
from autoglm_edge_firmware.media.ext4 import Ext4Tree
from autoglm_edge_firmware.media.partitions import SECTOR_BYTES, Partition
from autoglm_edge_firmware.programs import run

# Without what Debian 12's own boot loaders and tools do not know.
_FEATURES = "^orphan_file,^metadata_csum_seed"


_FEWEST_BYTES = 64 << 20
"""Of a FAT32 file system whose clusters are sectors, and some more."""


def lay_out(image: Path, layout: Layout) -> None:
    """Make an empty image with its partition table."""
    with image.open("wb") as file:
        file.truncate(layout.image_bytes)
        file.write(partitions.write(layout.table))


def make_boot(image: Path, layout: Layout, source: Path, epoch: int) -> None:
    """Make the boot partition from a folder.

    Raises:
        FirmwareError: it has no room.
    """
    boot = layout.boot
    clock = {"SOURCE_DATE_EPOCH": str(epoch)}
    run(
        "mkfs.vfat", "-F", "32", "-s", str(_cluster_sectors(boot)), "-n", "BOOT", "--invariant",
        "-i", f"{layout.identifiers.boot:08x}",
        "--offset", str(boot.start_bytes // SECTOR_BYTES), image, str(boot.size_bytes // 1024), more=clock,
    )  # fmt: skip
    at = f"{image}@@{boot.start_bytes}"
    try:
        for path in _sorted(source):
            inside = f"::/{path.relative_to(source)}"
            if path.is_dir():
                run("mmd", "-i", at, inside, more=clock)
            else:
                run("mcopy", "-i", at, path, inside, more=clock)
    except ProgramFailed as error:
        raise FirmwareError(f"the boot partition has no room for its files ({error.problem}): make it larger") from None


def _cluster_sectors(boot: Partition) -> int:
    # FAT32 has at least 65525 clusters: with fewer, readers take it for FAT16.
    return 1 << max(0, (boot.size_bytes // _FEWEST_BYTES).bit_length() - 1)


def _sorted(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            yield from _sorted(path)


def make_ext4(image: Path, part: Partition, source: Path, label: str, identity: UUID, seed: UUID, epoch: int) -> None:
    """Make an ext4 partition from a folder, whose owner and mode its root gets.

    Raises:
        FirmwareError: it has no room.
    """
    clock = {"E2FSPROGS_FAKE_TIME": str(epoch), "SOURCE_DATE_EPOCH": str(epoch)}
    owner = source.stat()
    owned = f"root_owner={owner.st_uid}:{owner.st_gid}"
    options = f"offset={part.start_bytes},hash_seed={seed},{owned},lazy_itable_init=0"
    try:
        run(
            "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", _FEATURES, "-L", label, "-U", str(identity),
            "-E", options, "-d", source, image, f"{part.size_bytes // 1024}k", more=clock,
        )  # fmt: skip
    except ProgramFailed as error:
        raise FirmwareError(f"the partition {label} cannot be made ({error.problem})") from None
    at = f"{image}?offset={part.start_bytes}"
    # mke2fs copies the time at which a file was put into the folder, which is that of the making.
    used = _inodes(at)
    changed = "".join(f"sif <{each}> ctime @{epoch}\nsif <{each}> ctime_extra 0\n" for each in range(1, used + 1))
    mode = f"sif <2> mode 0{stat.S_IFDIR | stat.S_IMODE(owner.st_mode):o}\n"
    run("debugfs", "-w", "-f", "-", at, given=(changed + mode).encode(), more=clock)
    Ext4Tree(image, part.start_bytes).check()


def _inodes(at: str) -> int:
    about = run("dumpe2fs", "-h", at).decode()
    fields = dict(line.split(":", 1) for line in about.splitlines() if ":" in line)
    return int(fields["Inode count"]) - int(fields["Free inodes"])


def map_of(image: Path, layout: Layout) -> BlockMap:
    """Return which blocks are in use, by the file systems themselves: free ones need not be written to a card."""
    ranges = [(0, SECTOR_BYTES)]
    boot = layout.boot.start_bytes
    ranges.append((boot, boot + fat.used_bytes(image, boot)))
    for part in (layout.root, layout.data):
        block, used = Ext4Tree(image, part.start_bytes).used_blocks()
        ranges += [(part.start_bytes + first * block, part.start_bytes + after * block) for first, after in used]
    return block_map.measure(image, ranges)


def take_boot(root: Path, target: Path) -> None:
    """Move what packages have put into the folder of the boot partition to where its image is made from."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((root / "boot" / "firmware").iterdir()):
        path.replace(target / path.name)


def put(folder: Path, path: str, data: bytes) -> None:
    """Write a file of the boot partition's folder."""
    at = folder / PurePosixPath(path).relative_to("/")
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(data)
