from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from autoglm_edge_agent import commands
from autoglm_edge_agent.commands import Commands
from autoglm_edge_agent.storage.ledger import KEPT, Ledger
from autoglm_edge_protocol.commands import Answer, Command, Outcome
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.durable import Disk


class DiskWithSwitch(Disk):
    """Full while `full` says so; `fail_at` stops the n-th replacement from now on before or after it is done."""

    def __init__(self) -> None:
        self.full = False

    def replace(self, source: Path, target: Path) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        super().replace(source, target)


def _answer(command_id: str, text: str = "x") -> Answer:
    reason = Reason(code="code", message=text)
    return Answer(device="d", command_id=command_id, outcome=Outcome.FAILED, reason=reason)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.json"


def test_answers_are_kept_until_they_are_acknowledged(path: Path) -> None:
    ledger = Ledger(path, Disk())
    ledger.add(_answer("a"))
    ledger.add(_answer("b"))
    ledger.acknowledge("a")
    again = Ledger(path, Disk())
    assert [answer.command_id for answer in again.unsent()] == ["b"]
    assert again.find("a") == _answer("a")
    again.send_again("a")
    assert [answer.command_id for answer in Ledger(path, Disk()).unsent()] == ["a", "b"]


def test_the_ledger_is_bounded_and_drops_what_is_acknowledged_first(path: Path) -> None:
    ledger = Ledger(path, Disk())
    ledger.add(_answer("unsent"))
    for number in range(2 * KEPT):
        ledger.add(_answer(f"c{number}", "\U0001f600" * 2000))  # the longest there is
        ledger.acknowledge(f"c{number}")
    again = Ledger(path, Disk())
    assert [answer.command_id for answer in again.unsent()] == ["unsent"]
    assert again.find(f"c{2 * KEPT - 1}") is not None
    assert again.find("c0") is None
    for number in range(2 * KEPT):
        again.add(_answer(f"d{number}"))
    assert len(again.unsent()) == KEPT


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"schema_version": 99}'])
def test_a_file_that_cannot_be_understood_is_an_empty_ledger(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    ledger = Ledger(path, Disk())
    assert ledger.unsent() == []
    ledger.add(_answer("a"))
    assert Ledger(path, Disk()).find("a") is not None


def test_a_full_disk_keeps_no_answer_back_that_was_sent(path: Path) -> None:
    disk = DiskWithSwitch()
    ledger = Ledger(path, disk)
    ledger.add(_answer("a"))
    disk.full = True
    ledger.acknowledge("a")
    assert ledger.unsent() == []  # or it would be sent again and again while the disk is full
    with pytest.raises(OSError, match="full"):
        ledger.add(_answer("b"))
    assert ledger.find("b") is None
    assert [answer.command_id for answer in Ledger(path, Disk()).unsent()] == ["a"]


async def test_a_command_on_a_full_disk_acts_once_and_is_answered_when_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "RETRY_S", 0.01)
    disk, acted, sent = DiskWithSwitch(), [], []

    async def act(command: Command) -> dict[str, str]:
        acted.append(command.command_id)
        return {}

    async def send(data: bytes) -> None:
        sent.append(data)

    part = Commands("d", Ledger(path, disk), {"act": act}, send)
    running = asyncio.create_task(part.run())
    disk.full = True
    taking = asyncio.create_task(part.take(Command(command_id="c", device="d", name="act")))
    await asyncio.sleep(0.1)
    assert not taking.done() and acted == ["c"] and sent == []
    disk.full = False
    await asyncio.wait_for(taking, 2)
    await asyncio.sleep(0.05)
    assert acted == ["c"] and len(sent) == 1
    running.cancel()
    await asyncio.wait({running})
