"""Partition tables, block maps, and the one contract of all trees of files."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.firmware import images

from autoglm_edge_firmware.media import block_map, partitions
from autoglm_edge_firmware.media.ext4 import Ext4Tree
from autoglm_edge_firmware.media.fat import FatTree
from autoglm_edge_firmware.media.opened import open_medium
from autoglm_edge_firmware.media.partitions import FAT32_LBA, LINUX, NoTable, Partition, Table
from autoglm_edge_firmware.media.trees import FolderTree, Tree, exists

LAYOUT = images.Layout({"cmdline.txt": "quiet\n"}, {"etc/motd": "hello\n", "link": "-> etc/motd"}, 34, 8)
MIB = images.MIB


@pytest.fixture(params=["fat", "ext4", "folder"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    if request.param == "folder":
        return FolderTree(images.fill(tmp_path / "root", {"here": ""}))
    image = images.make(tmp_path / "card.img", LAYOUT)
    return FatTree(image, images.BOOT_AT) if request.param == "fat" else Ext4Tree(image, LAYOUT.root_at)


def test_the_contract_of_trees(tree: Tree) -> None:
    assert tree.read("/none") is None
    assert tree.names("/none") == ()
    tree.remove("/none")
    for data in (b"", b"first", bytes(range(256)) * 5000, b"last"):
        tree.write("/a/b/Some file.txt", data)
        assert tree.read("/a/b/Some file.txt") == data
    tree.write("/a/other", b"x", 0o600)
    assert tree.names("/a") == ("b", "other")
    assert exists(tree, "/a/b")
    assert not exists(tree, "/a/c")
    assert tree.read("/a/b") is None
    tree.remove("/a/other")
    assert tree.names("/a") == ("b",)


def test_links_are_followed_within_the_tree(tmp_path: Path) -> None:
    trees: list[Tree] = [FolderTree(images.fill(tmp_path / "root", LAYOUT.root))]
    trees.append(Ext4Tree(images.make(tmp_path / "card.img", LAYOUT), LAYOUT.root_at))
    for tree in trees:
        assert tree.read("/link") == b"hello\n"
        tree.link("/etc/again", "/etc/motd")
        tree.link("/etc/again", "motd")
        assert tree.read("/etc/again") == b"hello\n"
        tree.link("/etc/round", "round")
        assert tree.read("/etc/round") is None


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_tables_are_read_as_sfdisk_writes_them(tmp_path: Path, label: str) -> None:
    image = tmp_path / "card.img"
    image.write_bytes(bytes(64 * MIB))
    kinds = ("c", "83") if label == "dos" else ("U", "L")
    lines = f"label: {label}\nstart=4MiB, size=8MiB, type={kinds[0]}\nstart=16MiB, size=32MiB, type={kinds[1]}\n"
    subprocess.run(["sfdisk", "--quiet", str(image)], input=lines.encode(), check=True, env=images.TOOLS)
    table = partitions.parse(image.read_bytes()[: partitions.TABLE_BYTES])
    assert [(each.start_bytes, each.size_bytes) for each in table.partitions] == [
        (4 * MIB, 8 * MIB),
        (16 * MIB, 32 * MIB),
    ]
    assert table.scheme == ("mbr" if label == "dos" else "gpt")


def test_sfdisk_reads_ours(tmp_path: Path) -> None:
    table = Table((Partition(1, 4 * MIB, 8 * MIB, FAT32_LBA, True), Partition(2, 12 * MIB, MIB, LINUX)), 0x1234ABCD)
    image = tmp_path / "card.img"
    image.write_bytes(partitions.write(table) + bytes(16 * MIB))
    said = subprocess.run(
        ["sfdisk", "--dump", str(image)], capture_output=True, text=True, check=True, env=images.TOOLS
    )
    assert "label-id: 0x1234abcd" in said.stdout
    assert "start=        8192, size=       16384, type=c, bootable" in said.stdout
    assert subprocess.run(["sfdisk", "--verify", str(image)], capture_output=True, env=images.TOOLS).returncode == 0
    assert partitions.parse(image.read_bytes()[: partitions.TABLE_BYTES]) == table


@given(st.binary(min_size=0, max_size=2048), st.sampled_from([b"", b"\x55\xaa"]))
def test_any_bytes_are_a_table_or_none(data: bytes, magic: bytes) -> None:
    head = data[:510].ljust(510, b"\0") + magic + data[512:]
    with contextlib.suppress(NoTable):
        assert partitions.parse(head).partitions


def test_a_single_file_system_is_no_card(tmp_path: Path) -> None:
    alone = tmp_path / "boot.fat"
    with alone.open("wb") as file:
        file.truncate(40 * MIB)
    subprocess.run(["mkfs.vfat", "-F", "32", "-s", "1", str(alone)], check=True, capture_output=True, env=images.TOOLS)
    with pytest.raises(Exception, match="not an image of a card"):
        open_medium(alone)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 1 << 16)), max_size=20))
def test_aligned_ranges_cover_what_was_asked_and_never_meet(pairs: list[tuple[int, int]]) -> None:
    ranges = [(start, start + size) for start, size in pairs]
    found = block_map.aligned(ranges, 2 << 20)
    assert all(any(low <= start and end <= high for low, high in found) for start, end in ranges)
    assert all(before[1] < after[0] for before, after in pairwise(found))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("bmap version", "map version"),
        lambda text: text.replace("<Range", "<Rang"),
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("<ImageSize> 1", "<ImageSize> 9"),
    ],
)
def test_a_damaged_map_is_noticed(tmp_path: Path, damage: Callable[[str], str]) -> None:
    image = tmp_path / "card.img"
    image.write_bytes(bytes(1 << 20))
    text = block_map.to_text(block_map.measure(image, [(0, 5000), (100_000, 100_001)]))
    assert block_map.parse(text).mapped_bytes == 3 * 4096
    with pytest.raises(block_map.MalformedMap):
        block_map.parse(damage(text))
