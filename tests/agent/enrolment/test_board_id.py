from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_edge_agent.enrolment.board_id import board_id


def board(root: Path, serial: bytes | None = None, **interfaces: str) -> Path:
    """The files of a board; an interface whose name begins with `v` is none of its own."""
    if serial is not None:
        (root / "proc/device-tree").mkdir(parents=True)
        (root / "proc/device-tree/serial-number").write_bytes(serial)
    for name, address in interfaces.items():
        folder = root / "sys/class/net" / name
        folder.mkdir(parents=True)
        (folder / "address").write_text(address + "\n")
        if not name.startswith("v"):
            (folder / "device").mkdir()
    return root


def test_a_board_has_the_same_digest_each_time_and_another_in_each_fleet(tmp_path: Path) -> None:
    pi = board(tmp_path, b"10000000a3b1c2d3\0")
    assert board_id("home", pi) == board_id("home", pi)
    assert board_id("home", pi) != board_id("work", pi)
    digest = board_id("home", pi)
    assert digest is not None
    assert len(digest) == 32
    assert "a3b1c2d3" not in digest


def test_a_copied_card_tells_of_the_board_that_it_is_in(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc/machine-id").write_text("the same\n")
    one, two = board(tmp_path / "one", b"1\0"), board(tmp_path / "two", b"2\0")
    assert board_id("home", one) != board_id("home", two)


@pytest.mark.parametrize(
    ("interfaces", "is_told"),
    [
        ({}, False),
        ({"eth0": "dc:a6:32:01:02:03"}, True),
        ({"eth0": "02:42:ac:11:00:02"}, False),  # made up
        ({"eth0": "52:54:00:12:34:56"}, True),
        ({"veth0": "dc:a6:32:01:02:03"}, False),
        ({"eth0": "nonsense"}, False),
        ({"docker": "02:42:00:00:00:01", "wlan0": "dc:a6:32:01:02:04"}, True),
    ],
)
def test_without_a_serial_number_an_interface_of_the_boards_own_counts(
    tmp_path: Path, interfaces: dict[str, str], is_told: bool
) -> None:
    assert (board_id("home", board(tmp_path, None, **interfaces)) is not None) is is_told


def test_a_sandbox_that_hides_one_name_of_the_serial_number_changes_nothing(tmp_path: Path) -> None:
    open_board, hidden = board(tmp_path / "open", b"a3b1\0"), tmp_path / "hidden"
    (hidden / "sys/firmware/devicetree/base").mkdir(parents=True)
    (hidden / "sys/firmware/devicetree/base/serial-number").write_bytes(b"a3b1\0")
    assert board_id("home", hidden) == board_id("home", open_board)


def test_a_serial_number_of_nothing_but_zeros_is_none(tmp_path: Path) -> None:
    assert board_id("home", board(tmp_path, b"0000000000000000\0")) is None
