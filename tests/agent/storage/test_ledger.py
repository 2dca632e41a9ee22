from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.waiting import until

from autoglm_edge_agent import commands
from autoglm_edge_agent.commands import Commands
from autoglm_edge_agent.storage.ledger import KEPT, Ledger
from autoglm_edge_protocol.commands import Answer, Command, Outcome
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import LinkError


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
    assert not taking.done() and not acted and not sent  # noted first: a crash must not make it forgotten or too late
    disk.full = False
    await asyncio.wait_for(taking, 2)
    await asyncio.sleep(0.05)
    assert acted == ["c"] and len(sent) == 1
    running.cancel()
    await asyncio.wait({running})


def _begun(path: Path, **more: Any) -> Command:
    command = Command(command_id="c", device="d", name="act", **more)
    Ledger(path, Disk()).begin(command)
    return command


async def _run_until_sent(part: Commands, sent: list[bytes], count: int) -> None:
    running = asyncio.create_task(part.run())
    await until(lambda: len(sent) >= count, 5)
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.parametrize("expires_at", [None, 1.0])
async def test_what_was_begun_before_a_crash_is_finished_though_nobody_repeats_it(
    path: Path, expires_at: float | None
) -> None:
    """Also when it has expired meanwhile: it may have taken effect, and `expired` would deny that."""
    command = _begun(path, expires_at=expires_at)
    acted, sent = [], list[bytes]()

    async def act(command: Command) -> dict[str, str]:
        acted.append(command.command_id)
        return {}

    async def send(data: bytes) -> None:
        sent.append(data)

    part = Commands("d", Ledger(path, Disk()), {"act": act}, send)
    await _run_until_sent(part, sent, 1)
    assert acted == ["c"] and parse(Answer, sent[0]).outcome is Outcome.SUCCEEDED
    again = Commands("d", Ledger(path, Disk()), {"act": act}, send)
    await again.take(command)
    await _run_until_sent(again, sent, 2)
    assert acted == ["c"] and sent[1] == sent[0]


async def test_an_answer_that_the_broker_may_not_have_is_sent_again_and_is_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "RETRY_S", 0.01)
    sent = list[bytes]()

    async def act(_command: Command) -> dict[str, str]:
        return {"at": str(len(sent))}

    async def send(data: bytes) -> None:
        sent.append(data)
        if len(sent) < 3:
            raise LinkError("the connection was lost before the broker acknowledged")

    part = Commands("d", Ledger(path, Disk()), {"act": act}, send)
    await part.take(Command(command_id="c", device="d", name="act"))
    await _run_until_sent(part, sent, 3)
    assert len(set(sent)) == 1
    assert Ledger(path, Disk()).unsent() == []


async def test_a_defect_of_an_action_is_an_answer(path: Path) -> None:
    sent = list[bytes]()

    async def act(_command: Command) -> dict[str, str]:
        raise ZeroDivisionError("a defect")

    async def send(data: bytes) -> None:
        sent.append(data)

    part = Commands("d", Ledger(path, Disk()), {"act": act}, send)
    await part.take(Command(command_id="c", device="d", name="act"))
    await _run_until_sent(part, sent, 1)
    reason = parse(Answer, sent[0]).reason
    assert reason is not None and reason.code == "internal-error"


def test_a_ledger_of_the_first_release_is_read(path: Path) -> None:
    path.write_bytes(
        b'{"schema_version":1,"entries":[{"answer":{"schema_version":1,"device":"d","command_id":"a","outcome":'
        b'"failed","result":{},"reason":{"code":"no-previous","message":"x"},"at":1764000100.25},"acknowledged":false}]}'
    )
    ledger = Ledger(path, Disk())
    assert [answer.command_id for answer in ledger.unsent()] == ["a"] and ledger.begun() == []


def test_a_ledger_of_a_newer_release_is_kept_aside(path: Path) -> None:
    newer = b'{"schema_version": 99, "entries": "in another way"}'
    path.write_bytes(newer)
    Ledger(path, Disk()).add(_answer("a"))
    assert path.with_name("answers-newer.json").read_bytes() == newer
    assert Ledger(path, Disk()).find("a") is not None


async def test_a_command_acts_once_though_its_answer_has_made_way_for_others(path: Path) -> None:
    """Whoever owns the broker delivers all but one again, and acknowledges nothing: the one goes before its turn."""
    ledger, acted = Ledger(path, Disk()), []
    for number in range(KEPT):
        ledger.add(_answer(f"c{number}"))
        ledger.acknowledge(f"c{number}")
    for number in range(KEPT - 1):
        ledger.send_again(f"c{number}")
    ledger.add(_answer("newest"))
    last = f"c{KEPT - 1}"
    assert ledger.find(last) is None

    async def act(command: Command) -> dict[str, str]:
        acted.append(command.command_id)
        return {}

    async def send(_data: bytes) -> None:
        """Take it."""

    part = Commands("d", Ledger(path, Disk()), {"act": act}, send)
    await part.take(Command(command_id=last, device="d", name="act"))
    assert acted == []
