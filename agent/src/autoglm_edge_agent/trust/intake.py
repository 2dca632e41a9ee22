"""What arrives from outside on its way to the gate: one desired state at a time, always the newest, tried until judged.

A desired state is retained by the broker and comes again with each connection: so it need not be kept here, and judging
it, which may take a download, holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState, Reason, TrustReport

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
LATER_S = 600.0
"""When to look again at what is too late by a clock that may be wrong."""
COMMAND_ATTEMPTS = 3
TIME_CODES = {"expired", "metadata-expired"}


class Judgement(Protocol):
    """Lets messages in. Each method but the last raises Refusal, Hindrance, OSError."""

    async def desired(self, message: bytes) -> DesiredState:
        """Return the desired state of a message."""

    async def command(self, message: bytes) -> Command:
        """Return the command of a message."""

    def was_accepted(self, message: bytes, generation: int) -> bool:
        """Whether these very bytes were the last to be let in, and are of this generation."""

    def report(self) -> TrustReport:
        """Return what the fleet is told."""


class Intake:
    """Takes messages, lets them be judged and hands on what is let in.

    Args:
        act: takes in a desired state, and raises OSError while that cannot be kept.
        generation: returns the generation that is being worked on.
    """

    def __init__(
        self, judgement: Judgement, act: Callable[[DesiredState], Awaitable[object]], generation: Callable[[], int]
    ) -> None:
        self._judgement = judgement
        self._act = act
        self._generation = generation
        self._newest: bytes | None = None
        self._judged: bytes | None = None
        """What is being judged at this moment."""
        self._news = asyncio.Event()

    def put(self, message: bytes) -> None:
        """Take a message with a desired state in place of an earlier one that is not judged yet."""
        self._newest = message
        self._news.set()

    async def run(self) -> None:
        """Judge what comes, for ever."""
        work: asyncio.Task[None] | None = None
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if self._newest == self._judged:
                    continue  # again, as with each connection: on an unsteady line it would be judged to no end
                if work is not None:
                    await cancel(work)
                    if not work.cancelled():
                        work.result()
                assert self._newest is not None
                work = asyncio.create_task(self._settle(self._newest))
        finally:
            if work is not None:
                await cancel(work)

    async def take(self, message: bytes) -> Reason | None:
        """Judge a desired state and act on it; returns why not. Raises Hindrance, OSError."""
        if self._judgement.was_accepted(message, self._generation()):
            return None
        try:
            desired = await self._judgement.desired(message)
        except Refusal as refusal:
            return refusal.reason
        await self._act(desired)
        return None

    async def _settle(self, message: bytes) -> None:
        delay_s = FIRST_RETRY_S
        while True:
            try:
                refusal = await self._judge(message)
            except (Hindrance, OSError) as error:
                log.warning("a desired state cannot be judged or kept yet: %s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(LAST_RETRY_S, 2 * delay_s)
                continue
            except Exception:
                # A defect of ours must not end the agent: the message would be there again at its next start.
                log.exception("a desired state met a defect of the agent and is left aside")
                return
            if refusal is None or refusal.code not in TIME_CODES:
                return
            await asyncio.sleep(LATER_S)

    async def _judge(self, message: bytes) -> Reason | None:
        self._judged = message
        try:
            return await self.take(message)
        finally:
            self._judged = None

    async def command(self, message: bytes) -> Command | None:
        """Return the command of a message, None when it is not let in. The fleet sends unanswered ones again."""
        for attempt in range(COMMAND_ATTEMPTS):
            try:
                return await self._judgement.command(message)
            except Refusal:
                return None
            except (Hindrance, OSError) as error:
                log.warning("a command cannot be judged yet: %s", error)
                await asyncio.sleep(FIRST_RETRY_S * 2**attempt)
        return None
