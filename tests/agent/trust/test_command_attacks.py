"""Commands that come again, in the wrong order, too late or to the wrong place: what the device does, and what it says.

The gate, the ledger and what carries commands out, together, each on its disk; only the broker is not here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from tests.agent.trust.devices import DEVICE, GatedDevice, command
from tests.fakes.signing import DAY_S, fresh_signer

from autoglm_edge_agent.commands import Commands
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.ledger import Ledger
from autoglm_edge_agent.trust.memory import COMMANDS_KEPT
from autoglm_edge_protocol.commands import Answer, Command, Outcome
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk

NOW = time.time()


class CommandedDevice:
    """A device that notes what it did and what it answered; both outlive a restart, as the world does."""

    def __init__(self, device: GatedDevice) -> None:
        self.device = device
        self.done: list[str] = []
        self.answers: list[Answer] = []
        self._commands = self._start()

    def _start(self) -> Commands:
        ledger = Ledger(self.device.directory.parent / "answers.json", Disk())
        return Commands(DEVICE, ledger, {"ping": self._act}, self._send, self.device.gate.time)

    def restart(self) -> None:
        self.device.restart()
        self._commands = self._start()

    async def _act(self, each: Command) -> dict[str, str]:
        self.done.append(each.command_id)
        return {"number": str(len(self.done))}

    async def _send(self, data: bytes) -> None:
        self.answers.append(parse(Answer, data))

    async def deliver(self, *messages: bytes) -> list[str]:
        """Let messages come in this order; returns what the gate says to each."""
        codes = []
        for message in messages:
            try:
                await self._commands.take(await self.device.gate.command(message))
            except Refusal as refusal:
                codes.append(refusal.reason.code)
            else:
                codes.append("accepted")
        sending = asyncio.create_task(self._commands.run())
        await asyncio.sleep(0.05)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return codes


Attack = Callable[[CommandedDevice], bytes]
REFUSED: list[tuple[str, str, Attack]] = [
    ("forged", "untrusted-signature", lambda d: d.device.message(command("x"), by=[fresh_signer("stranger")])),
    (
        "forged with a key of another role",
        "untrusted-signature",
        lambda d: d.device.message(command("x"), by=[d.device.repository.signers["timestamp"]]),
    ),
    ("to another device", "wrong-device", lambda d: d.device.message(command("x", device="barn"))),
    ("to another fleet", "wrong-fleet", lambda d: d.device.message(command("x"), fleet="work")),
]


@pytest.fixture
def commanded(device: GatedDevice) -> CommandedDevice:
    return CommandedDevice(device)


@pytest.mark.parametrize(("code", "attack"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_what_is_refused_is_not_done_and_not_answered(
    commanded: CommandedDevice, code: str, attack: Attack
) -> None:
    assert await commanded.deliver(attack(commanded)) == [code]
    assert (commanded.done, commanded.answers) == ([], [])


async def test_replayed_it_is_done_once_and_answered_alike(commanded: CommandedDevice) -> None:
    message = commanded.device.message(command("a"))
    assert await commanded.deliver(message, message) == ["accepted", "accepted"]
    commanded.restart()
    later = commanded.device.message(command("a"), signed_at=NOW + 60)  # the fleet signs anew what is not answered
    assert await commanded.deliver(message, later) == ["accepted", "accepted"]
    assert commanded.done == ["a"]
    assert len(commanded.answers) >= 2 and all(answer == commanded.answers[0] for answer in commanded.answers)


async def test_replayed_when_it_is_forgotten_it_is_refused(commanded: CommandedDevice) -> None:
    first = commanded.device.message(command("a"), signed_at=NOW)
    assert await commanded.deliver(first) == ["accepted"]
    vault = commanded.device.vault
    for number in range(COMMANDS_KEPT):
        later = command(f"c{number}").model_copy(update={"signed_at": NOW + 1 + number})
        vault.remember(vault.memory.with_command(later, 0.0))
    commanded.restart()
    assert await commanded.deliver(first) == ["replayed"]
    assert commanded.done == ["a"]


async def test_reordered_each_is_done_once(commanded: CommandedDevice) -> None:
    first, second, third = (
        commanded.device.message(command(name), signed_at=NOW + number) for number, name in enumerate("abc")
    )
    assert set(await commanded.deliver(second, first, second, third, first)) == {"accepted"}
    assert commanded.done == ["b", "a", "c"]
    assert {(answer.command_id, answer.outcome) for answer in commanded.answers} == {
        (name, Outcome.SUCCEEDED) for name in "abc"
    }


async def test_expired_it_is_answered_and_not_done(commanded: CommandedDevice) -> None:
    late = commanded.device.message(command("a"), signed_at=NOW - 2 * DAY_S, expires_at=NOW - DAY_S)
    assert await commanded.deliver(late, late) == ["accepted", "accepted"]
    assert commanded.done == []
    assert {answer.outcome for answer in commanded.answers} == {Outcome.EXPIRED}


async def test_replayed_after_it_has_expired_the_first_answer_stays(commanded: CommandedDevice) -> None:
    message = commanded.device.message(command("a"), expires_at=NOW + 3600)
    await commanded.deliver(message)
    commanded.device.clock_s = NOW + DAY_S
    commanded.restart()
    assert await commanded.deliver(message) == ["accepted"]
    assert commanded.done == ["a"]
    assert {answer.outcome for answer in commanded.answers} == {Outcome.SUCCEEDED}
