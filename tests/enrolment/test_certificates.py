"""A certificate that a device is given: what the process with its key says to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.claimants import Claimant, Desk

from autoglm_edge_agent.enrolment.answers import Issued
from autoglm_edge_agent.enrolment.key_process import ask_key
from autoglm_edge_agent.enrolment.key_wire import Given, KeyOrder
from autoglm_edge_agent.enrolment.key_work import FileKey, carry_out
from autoglm_edge_protocol.durable import Disk


@pytest.fixture
def issued(tmp_path: Path) -> Iterator[tuple[Claimant, Issued]]:
    desk = Desk(tmp_path / "fleet")
    board = Claimant(desk.claim(), tmp_path / "board")
    answer = desk.answer(board)
    assert isinstance(answer, Issued)
    yield board, answer
    desk.close()


def given(answer: Issued, **changes: str) -> KeyOrder:
    values = {"certificate": answer.certificate, "authority": answer.authority, "device": answer.identity.device}
    return KeyOrder(given=Given(**values | changes))


def test_a_certificate_is_good_when_it_is_of_our_key_and_name_and_signed_by_the_authority(
    issued: tuple[Claimant, Issued], tmp_path: Path
) -> None:
    board, answer = issued
    assert carry_out(given(answer), board.key).problem is None
    another = FileKey(tmp_path / "another.key", Disk())
    other = Desk(tmp_path / "other")
    pem = other.fleet.enrolment.authority.pem()
    other.close()
    for order, key, problem in (
        (given(answer), another, "of another key"),
        (given(answer, device="cam-2"), board.key, "of another device"),
        (given(answer, authority=pem), board.key, "not signed by the fleet's authority"),
        (given(answer, certificate=answer.authority), board.key, "of another key"),
        (given(answer, certificate="-----BEGIN CERTIFICATE-----\nMA==\n"), board.key, "not signed"),
    ):
        assert problem in (carry_out(order, key).problem or "")


async def test_the_process_says_the_same(issued: tuple[Claimant, Issued], tmp_path: Path) -> None:
    _, answer = issued
    path = tmp_path / "board" / "device.key"
    assert (await ask_key(path, given(answer))).problem is None
    assert (await ask_key(path, given(answer, device="cam-2"))).problem == "the certificate is of another device"
