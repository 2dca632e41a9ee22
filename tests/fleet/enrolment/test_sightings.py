from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.claimants import Claimant, Desk

from autoglm_edge_fleet.enrolment.sightings import MOST_BOARDS, Finding, Seen, judge, sight, suspicions

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


@pytest.mark.parametrize(
    ("seen", "board", "finding"),
    [
        (Seen(None, frozenset()), A, None),
        (Seen(A, frozenset()), A, None),
        (Seen(A, frozenset({A})), A, None),
        (Seen(A, frozenset({A})), B, Finding.MOVED),
        (Seen(A, frozenset()), B, Finding.MOVED),
        (Seen(B, frozenset({A, B})), B, None),
        (Seen(B, frozenset({A, B})), A, Finding.CLONED),
        (Seen(B, frozenset({A, B}), is_cloned=True), A, None),  # known already
        (Seen(B, frozenset({A, B}), is_cloned=True), C, Finding.MOVED),
    ],
)
def test_what_a_sighting_says(seen: Seen, board: str, finding: Finding | None) -> None:
    assert judge(seen, board) is finding


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A fleet with one device, enrolled on board A."""
    desk = Desk(tmp_path / "fleet")
    desk.answer(Claimant(desk.claim(), tmp_path / "board", board=A))
    yield desk
    desk.close()


def test_a_device_on_its_own_board_is_nothing_to_speak_of(desk: Desk) -> None:
    assert [sight(desk.database, "cam-1", A) for _ in range(3)] == [None, None, None]
    assert suspicions(desk.database) == {}


def test_a_card_that_moves_once_is_said_to_have_moved(desk: Desk) -> None:
    assert [sight(desk.database, "cam-1", board) for board in (A, B, B)] == [None, Finding.MOVED, None]
    assert suspicions(desk.database) == {"cam-1": Finding.MOVED.value}


def test_a_card_in_two_boards_is_noticed_also_when_the_first_is_seen_late(desk: Desk) -> None:
    assert [sight(desk.database, "cam-1", board) for board in (B, A, B, A)] == [
        Finding.MOVED,
        Finding.CLONED,
        None,
        None,
    ]
    assert suspicions(desk.database) == {"cam-1": Finding.CLONED.value}
    noted = [entry.details for entry in desk.fleet.audit() if entry.action == "seen on another board"]
    assert [details["finding"] for details in noted] == ["moved", "cloned"]


def test_no_device_fills_the_database_with_boards(desk: Desk) -> None:
    for number in range(3 * MOST_BOARDS):
        sight(desk.database, "cam-1", f"{number:032x}")
    rows = desk.database.read("SELECT COUNT(*) FROM boards")
    assert rows[0][0] <= MOST_BOARDS + 1
