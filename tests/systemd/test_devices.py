from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest
from tests.fakes import boards

from autoglm_edge_agent.doctor.accelerators import accelerators
from autoglm_edge_agent.doctor.tree import Tree
from autoglm_edge_agent.systemd.devices import GROUPS, drop_ins_for, link, node_groups

SHIPPED = Path(__file__).parents[2] / "systemd/devices"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (boards.PI_4, ()),
        (boards.PI_5, ()),
        (boards.PI_5_CORAL_PCIE, ("coral-pcie",)),
        (boards.PI_4_CORAL_USB, ("coral-usb",)),
        (boards.PI_4_CORAL_USB_LOADED, ("coral-usb",)),
        (boards.PI_5_HAILO, ("hailo",)),
        (boards.ORIN_NANO, ("jetson",)),
        (boards.X86_64, ()),  # its processor does the work, and what its GPUs need depends on their drivers
    ],
)
def test_which_devices_a_board_opens(files: boards.Files, expected: tuple[str, ...], tmp_path: Path) -> None:
    tree = Tree(boards.write_board(files, tmp_path))
    names = drop_ins_for(accelerators(tree, "Linux", "aarch64"))
    assert names == expected
    for name in names:
        assert (SHIPPED / f"{name}.conf").is_file()


def test_links_follow_what_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "unit.d"
    assert link(folder, ["hailo"], [], SHIPPED)
    assert not link(folder, ["hailo"], [], SHIPPED)
    assert (folder / "50-autoglm-edge-hailo.conf").resolve() == SHIPPED / "hailo.conf"
    (folder / "override.conf").write_text("[Service]\n")
    assert link(folder, ["coral-usb"], ["plugdev"], SHIPPED)
    assert sorted(path.name for path in folder.iterdir()) == ["50-autoglm-edge-coral-usb.conf", GROUPS, "override.conf"]
    assert (folder / GROUPS).read_text() == "[Service]\nSupplementaryGroups=plugdev\n"
    assert link(folder, [], [], SHIPPED)
    assert [path.name for path in folder.iterdir()] == ["override.conf"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to groups")
def test_only_groups_that_are_needed_and_there(tmp_path: Path) -> None:
    boards.write_board({**boards.PI_5_HAILO, "dev/apex_0": "", "dev/apex_1": "", "dev/hailo1": ""}, tmp_path)
    video = grp.getgrnam("video").gr_gid

    def give(name: str, gid: int, mode: int) -> None:
        os.chown(tmp_path / "dev" / name, 0, gid)
        (tmp_path / "dev" / name).chmod(mode)

    give("apex_0", video, 0o660)
    give("apex_1", 64999, 0o660)  # of a group that has no name here
    give("hailo0", video, 0o666)  # anybody may
    give("hailo1", 0, 0o660)  # root's alone: no group of a user helps
    assert node_groups(["coral-pcie", "hailo"], tmp_path) == ("video",)
    assert node_groups(["hailo"], tmp_path) == ()
