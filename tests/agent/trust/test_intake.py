"""The way to the gate: the newest desired state wins, hindrances and wrong clocks are waited out, defects outlived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.agent.trust.devices import command, desired
from tests.fakes.waiting import until

from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.trust import intake as module
from autoglm_edge_agent.trust.intake import Intake
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState, TrustReport


class _Gate:
    """Takes the generation from the message's bytes, and misbehaves a number of times before."""

    def __init__(self) -> None:
        self.troubles: dict[bytes, list[Callable[[], Exception]]] = {}
        self.slow: set[bytes] = set()
        self.takes_s = 0.0

    async def desired(self, message: bytes) -> DesiredState:
        await asyncio.sleep(3600 if message in self.slow else self.takes_s)
        self._trouble(message)
        return desired(int(message))

    async def command(self, message: bytes) -> Command:
        self._trouble(message)
        return command(message.decode())

    def _trouble(self, message: bytes) -> None:
        if self.troubles.get(message):
            raise self.troubles[message].pop(0)()

    def was_accepted(self, message: bytes, generation: int) -> bool:
        return int(message) == generation

    def report(self) -> TrustReport:
        return TrustReport(mode="signed")


class _Update:
    def __init__(self) -> None:
        self.taken: list[int] = []
        self.full = 0

    async def take(self, each: DesiredState) -> None:
        if self.full:
            self.full -= 1
            raise OSError(28, "full")
        self.taken.append(each.generation)

    async def until(self, *generations: int) -> None:
        await until(lambda: self.taken == list(generations), 5)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(module, "LATER_S", 0.02)


async def _run(messages: list[bytes], gate: _Gate, update: _Update, *expected: int, pause_s: float = 0.0) -> None:
    intake = Intake(gate, update.take, lambda: update.taken[-1] if update.taken else 0)
    running = asyncio.create_task(intake.run())
    for message in messages:
        intake.put(message)
        await asyncio.sleep(pause_s)
    await update.until(*expected)
    await asyncio.sleep(0.05)
    assert update.taken == list(expected) and not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_message_that_is_judged_slowly_makes_way_for_a_newer_one() -> None:
    gate = _Gate()
    gate.slow.add(b"1")
    await _run([b"1", b"2"], gate, _Update(), 2, pause_s=0.05)


async def test_a_message_that_comes_again_and_again_is_judged_all_the_same() -> None:
    gate, update = _Gate(), _Update()
    gate.takes_s = 0.1
    intake = Intake(gate, update.take, lambda: 0)
    running = asyncio.create_task(intake.run())
    for _ in range(10):  # as the broker repeats it with each connection of an unsteady line
        intake.put(b"1")
        await asyncio.sleep(0.05)
    assert update.taken[:1] == [1]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_message_that_was_accepted_is_not_judged_again() -> None:
    await _run([b"1", b"1", b"2", b"2"], _Gate(), _Update(), 1, 2, pause_s=0.05)


async def test_hindrances_and_a_full_disk_are_waited_out() -> None:
    gate, update = _Gate(), _Update()
    gate.troubles[b"1"] = [lambda: Hindrance("verifier-failed", "x"), lambda: OSError(28, "full")]
    update.full = 2
    await _run([b"1"], gate, update, 1)


@pytest.mark.parametrize("code", ["expired", "metadata-expired"])
async def test_what_is_too_late_by_the_clock_is_looked_at_again(code: str) -> None:
    gate = _Gate()
    gate.troubles[b"1"] = [lambda: Refusal(code, "x")] * 2
    await _run([b"1"], gate, _Update(), 1)


async def test_other_refusals_are_final_and_defects_outlived() -> None:
    gate = _Gate()
    gate.troubles = {b"1": [lambda: Refusal("replayed", "x")], b"2": [lambda: ZeroDivisionError("a defect")]}
    await _run([b"1", b"2", b"3"], gate, _Update(), 3, pause_s=0.05)


async def test_a_command_is_tried_a_few_times_and_left_to_be_sent_again() -> None:
    gate = _Gate()
    intake = Intake(gate, _Update().take, lambda: 0)
    gate.troubles = {
        b"a": [lambda: Hindrance("fleet-silent", "x")] * 2,
        b"b": [lambda: Hindrance("fleet-silent", "x")] * 3,
        b"c": [lambda: Refusal("untrusted-signature", "x")],
    }
    taken = [await intake.command(message) for message in (b"a", b"b", b"c")]
    assert [each.command_id if each else None for each in taken] == ["a", None, None]
