"""What lies on a stick in place of a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.agent.trust.devices import DEVICE, FLEET, CatalogueSource, GatedDevice, reference

from autoglm_edge_agent.config import DeviceSection
from autoglm_edge_agent.trust.gate import Gate
from autoglm_edge_agent.trust.sources import FolderSource


async def test_a_pipe_on_a_stick_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    os.mkfifo(tmp_path / "metadata" / "timestamp.json")
    assert await FolderSource(tmp_path).read("timestamp.json", 100) is None


async def test_a_device_on_a_stick_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "timestamp.json").symlink_to("/dev/zero")
    assert await FolderSource(tmp_path).read("timestamp.json", 100) is None


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "../metadata/../secret", "secret\0"])
async def test_nothing_beside_the_folder_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    assert await FolderSource(tmp_path).read(name, 100) is None


async def test_a_stick_that_cannot_be_read_leaves_the_word_to_the_next_source(device: GatedDevice) -> None:
    metadata = device.directory.parent / "stick" / "metadata"
    metadata.mkdir(parents=True)
    (metadata / "timestamp.json").symlink_to("/proc/self/mem")  # of which nothing is mapped at its beginning: EIO
    stick = FolderSource(metadata.parent)
    section = DeviceSection(fleet=FLEET, name=DEVICE)
    gate = Gate(
        section,
        device.vault,
        device.repository.first_root,
        lambda catalogue: [stick, CatalogueSource(device, catalogue)],
        lambda: None,
    )
    assert (await gate.desired(device.signed(1, reference()))).generation == 1
