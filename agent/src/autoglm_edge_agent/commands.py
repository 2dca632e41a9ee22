"""Commands: each is carried out once and gets exactly one final answer, whatever dies in between.

A command is in the ledger on disk before it is carried out, its answer before it is sent, and the answer stays there
until the broker has it. After a crash in between the command is carried out again, whether it is delivered again or
not and also when it has expired meanwhile; so each action must bear being begun twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.ledger import Ledger
from autoglm_edge_protocol.commands import Answer, Command, Outcome
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.errors import LinkError

log = logging.getLogger(__name__)

RETRY_S = 2.0

Action = Callable[[Command], Awaitable[dict[str, str]]]
"""Does what a command asks for and returns the result. Raises Refusal, OSError."""


class Commands:
    """Carries commands out and sends their answers.

    Args:
        actions: command name -> action.
        send: publishes an answer and returns when the broker has it. Raises LinkError.
        clock: returns the Unix time in seconds by which a command is too late.
    """

    def __init__(
        self,
        device: str,
        ledger: Ledger,
        actions: Mapping[str, Action],
        send: Callable[[bytes], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._device = device
        self._ledger = ledger
        self._actions = actions
        self._send = send
        self._clock = clock
        self._acting = asyncio.Lock()
        self._news = asyncio.Event()
        self._news.set()

    async def take(self, command: Command) -> None:
        """Carry a command out and keep its answer; returns when it is kept, however long the disk is full."""
        async with self._acting:
            if self._ledger.find(command.command_id) is not None:
                self._ledger.send_again(command.command_id)
            elif self._ledger.is_gone(command.command_id):
                log.warning("%s was carried out and answered long ago", command.command_id)
            else:
                await self._finish(command)
        self._news.set()

    async def _finish(self, command: Command) -> None:
        again = any(each.command_id == command.command_id for each in self._ledger.begun())
        if not again and command.expires_at is not None and self._clock() > command.expires_at:
            answer = self._answer(command, Outcome.EXPIRED)
        else:
            await self._persistently(lambda: self._ledger.begin(command), f"{command.command_id} is to be carried out")
            answer = await self._carry_out(command)
        await self._persistently(lambda: self._ledger.add(answer), f"{command.command_id} is answered")

    async def _persistently(self, keep: Callable[[], None], what: str) -> None:
        # The broker still has the command while this waits, so nothing is lost when the agent dies meanwhile.
        while True:
            try:
                keep()
                return
            except OSError as error:
                log.warning("it cannot be kept yet that %s: %s", what, error)
                await asyncio.sleep(RETRY_S)

    async def _finish_begun(self) -> None:
        """Carry out what was begun before a crash: the fleet may think that it came too late to be sent again."""
        async with self._acting:
            for command in self._ledger.begun():
                log.info("%s (%s) was begun and not answered", command.name, command.command_id)
                await self._finish(command)
        self._news.set()

    async def run(self) -> None:
        """Finish what was begun, and send the answers, for ever."""
        await asyncio.gather(self._finish_begun(), self._send_answers())

    async def _send_answers(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                for answer in self._ledger.unsent():
                    await self._send(answer.to_bytes())
                    self._ledger.acknowledge(answer.command_id)
            except LinkError as error:
                log.warning("an answer could not be sent yet: %s", error)
                await asyncio.sleep(RETRY_S)
                self._news.set()

    async def _carry_out(self, command: Command) -> Answer:
        action = self._actions.get(command.name)
        if action is None:
            known = ", ".join(sorted(self._actions))
            return self._answer(command, Outcome.UNKNOWN, reason=("unknown-command", f"this agent knows: {known}"))
        try:
            return self._answer(command, Outcome.SUCCEEDED, result=await action(command))
        except Refusal as refusal:
            return self._answer(command, Outcome.FAILED, reason=(refusal.reason.code, refusal.reason.message))
        except OSError as error:
            return self._answer(command, Outcome.FAILED, reason=("disk-error", str(error)))
        except Exception as error:
            # A defect of ours must not keep the fleet waiting for an answer, nor end the agent at each repetition.
            log.exception("%s met a defect of the agent", command.name)
            return self._answer(command, Outcome.FAILED, reason=("internal-error", f"{type(error).__name__}: {error}"))

    def _answer(
        self,
        command: Command,
        outcome: Outcome,
        result: dict[str, str] | None = None,
        reason: tuple[str, str] | None = None,
    ) -> Answer:
        return Answer(
            device=self._device,
            command_id=command.command_id,
            outcome=outcome,
            result=result or {},
            reason=Reason(code=reason[0], message=reason[1][:2000]) if reason else None,
            at=time.time(),
        )
