"""Commands: each is carried out once and gets exactly one final answer, whatever dies in between.

The answer is in the ledger on disk before it is sent, and stays there until the broker has it. Commands are delivered
at least once, so each action must bear being begun again after a crash that came before its answer was kept.
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
        self._news = asyncio.Event()
        self._news.set()

    async def take(self, command: Command) -> None:
        """Carry a command out and keep its answer; returns when it is kept, however long the disk is full."""
        if self._ledger.find(command.command_id) is not None:
            self._ledger.send_again(command.command_id)
        else:
            await self._keep(await self._carry_out(command))
        self._news.set()

    async def _keep(self, answer: Answer) -> None:
        # The broker still has the command while this waits, so nothing is lost when the agent dies meanwhile.
        while True:
            try:
                self._ledger.add(answer)
                return
            except OSError as error:
                log.warning("the answer to %s cannot be kept yet: %s", answer.command_id, error)
                await asyncio.sleep(RETRY_S)

    async def run(self) -> None:
        """Send the answers, for ever."""
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
        if command.expires_at is not None and self._clock() > command.expires_at:
            return self._answer(command, Outcome.EXPIRED)
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
            reason=Reason(code=reason[0], message=reason[1]) if reason else None,
            at=time.time(),
        )
