from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.bundles import make_bundle
from tests.fleet.stand_in_device import FACTS

from autoglm_edge_fleet.commands import Pending, Sent, is_due
from autoglm_edge_fleet.deployments import open_standings
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.registry import (
    Known,
    Standing,
    after_presence,
    after_report,
    needs_publication,
    next_generation,
)
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState, Presence, ReportedState

PRESENCES = st.builds(Presence, device=st.just("d"), session=st.integers(0, 4), online=st.booleans())
REPORTS = st.builds(
    ReportedState,
    device=st.just("d"),
    session=st.integers(0, 4),
    sequence=st.integers(0, 4),
    at=st.just(0.0),
    facts=st.just(FACTS),
)
MESSAGES = st.lists(st.one_of(PRESENCES, REPORTS), max_size=12)


def taken(messages: list[Presence | ReportedState]) -> Known:
    known = Known()
    for message in messages:
        if isinstance(message, Presence):
            known = after_presence(known, message) or known
        else:
            known = after_report(known, message) or known
    return known


@given(MESSAGES.flatmap(lambda messages: st.tuples(st.just(messages), st.permutations(messages))))
def test_any_order_of_the_same_messages_ends_the_same(
    orders: tuple[list[Presence | ReportedState], list[Presence | ReportedState]],
) -> None:
    assert taken(orders[0]) == taken(orders[1])


@given(MESSAGES, MESSAGES)
def test_messages_that_come_again_change_nothing(
    first: list[Presence | ReportedState], second: list[Presence | ReportedState]
) -> None:
    known = taken(first + second)
    assert taken(first + second + first) == known


@given(MESSAGES)
def test_the_newest_session_decides(messages: list[Presence | ReportedState]) -> None:
    known = taken(messages)
    presences = [message for message in messages if isinstance(message, Presence)]
    if presences:
        newest = max(each.session for each in presences)
        assert known.presence_session == newest
        assert known.online is all(each.online for each in presences if each.session == newest)


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_generation_is_above_all_that_went_before(issued: int, reported: int) -> None:
    assert next_generation(issued, reported) > max(issued, reported)


def standing(generation: int, published: int, reported: int) -> Standing:
    return Standing(DesiredState(fleet="f", device="d", generation=generation, bundle=None), published, reported)


def test_what_is_published() -> None:
    assert needs_publication(standing(3, 2, 2), None), "a new one"
    assert needs_publication(standing(3, 2, 3), None), "a new one that the device knows: the broker retains an old one"
    assert needs_publication(standing(3, 3, 2), None), "once a connection, while the device has not taken it up"
    assert not needs_publication(standing(3, 3, 2), 3), "not twice on a connection"
    assert not needs_publication(standing(3, 3, 3), None), "not when the device has taken it up"
    assert needs_publication(standing(3, 3, 3), 3, "e2"), "signed anew, though nothing else is new"
    assert not needs_publication(replace(standing(3, 3, 3), published_epoch="e2"), 3, "e2"), "and not twice"


def test_when_a_command_is_sent() -> None:
    def due(sent: Sent | None, *, now: float = 100, online: bool = True, expires_at: float | None = None) -> bool:
        command = Command(command_id="c", device="d", name="ping", expires_at=expires_at)
        return is_due(Pending(command, online, session=5), sent, connection=2, now=now)

    assert due(None)
    assert not due(None, expires_at=99), "too late for the device to act"
    assert not due(Sent(2, 5, at=90)), "it is on its way"
    assert due(Sent(1, 5, at=90)), "the broker may have lost it with our connection"
    assert due(Sent(2, 4, at=90)), "the device has begun a new session"
    assert due(Sent(2, 5, at=60)), "too long without an answer"
    assert not due(Sent(2, 5, at=60), online=False), "nobody there to answer"


def test_an_order_that_no_document_can_carry_does_not_stop_the_others(tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "f", "f") as fleet:
        bundle = fleet.publish(make_bundle(tmp_path / "b")).bundle.id
        fleet.deploy(bundle, ["one", "two"], create=True)
        with fleet._database.transaction() as connection:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            connection.execute("UPDATE devices SET name = 'no name' WHERE name = 'one'")
            connection.execute("UPDATE deployments SET device = 'no name' WHERE device = 'one'")
        assert [standing.desired.device for standing in open_standings(fleet._database, "f", "")] == ["two"]
