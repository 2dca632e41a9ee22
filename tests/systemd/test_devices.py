from __future__ import annotations

import grp
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes import boards

from autoglm_edge_agent.doctor.accelerators import accelerators
from autoglm_edge_agent.doctor.tree import Tree
from autoglm_edge_agent.systemd.devices import GROUPS, drop_ins_for, link, node_groups

REPOSITORY = Path(__file__).parents[2]
SHIPPED = REPOSITORY / "systemd/devices"


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


def test_what_the_unit_runs_needs_the_standard_library_alone(tmp_path: Path) -> None:
    """It holds the agent up at every boot: a command line and pydantic would take seconds there."""
    board = boards.write_board(boards.PI_5_HAILO, tmp_path / "board")
    folder = tmp_path / "unit.d"
    command = [sys.executable, "-S", "-m", "autoglm_edge_agent.systemd.open_devices", "--root", str(board), str(folder)]
    environment = {"PYTHONPATH": str(REPOSITORY / "agent/src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("open to the agent: hailo\n", "", 0)
    assert [path.name for path in folder.iterdir()] == ["50-autoglm-edge-hailo.conf"]
    folder.rename(tmp_path / "kept")
    folder.touch()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("autoglm-edge-devices: [Errno ")
    assert done.stderr.count("\n") == 1
