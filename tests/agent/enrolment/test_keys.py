from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.claimants import Claimant, Desk

from autoglm_edge_agent.enrolment import key_process
from autoglm_edge_agent.enrolment.answers import Issued
from autoglm_edge_agent.enrolment.key_process import ask_key
from autoglm_edge_agent.enrolment.key_wire import Given, KeyOrder
from autoglm_edge_agent.enrolment.key_work import FileKey, carry_out
from autoglm_edge_agent.errors import Hindrance
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


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    public = FileKey(path, Disk()).public()
    assert FileKey(path, Disk()).public() == public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


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


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_said_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "device.key"
    path.write_text(content)
    result = carry_out(KeyOrder(), FileKey(path, Disk()))
    assert result.csr is None
    assert "cannot be used" in (result.problem or "")
    assert path.read_text() == content


async def test_the_process_does_the_same(issued: tuple[Claimant, Issued], tmp_path: Path) -> None:
    _, answer = issued
    path = tmp_path / "board" / "device.key"
    assert (await ask_key(path, given(answer))).problem is None
    asked = await ask_key(tmp_path / "new.key", KeyOrder())
    assert asked.csr is not None
    assert (tmp_path / "new.key").exists()
    with pytest.raises(Hindrance, match="cannot be used"):
        await ask_key(tmp_path, KeyOrder())


async def test_a_process_that_hangs_is_ended_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(key_process.sys, "executable", str(sleeper))
    with pytest.raises(Hindrance, match="hung"):
        await ask_key(tmp_path / "device.key", KeyOrder(), silence_s=0.2)
