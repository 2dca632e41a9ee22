"""Renews the device's certificate before it runs out, over the connection that the certificate has opened.

The key stays the same, so that one file is replaced at a time: after a loss of power the old certificate or the new one
is there, and either opens a connection. Asking is repeated until half of the certificate's life has become the next
one's beginning; a refusal is for the fleet's owner to mend, and is asked about again like any silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from autoglm_edge_agent.enrolment.enrol import AskKey
from autoglm_edge_agent.enrolment.identity import Identity, IdentityFolder
from autoglm_edge_agent.enrolment.key_process import ask_key
from autoglm_edge_agent.enrolment.key_wire import Given, KeyOrder
from autoglm_edge_agent.errors import Hindrance, StateError
from autoglm_edge_protocol.backoff import Backoff
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.enrolment import Grant, RenewalAnswer, RenewalRequest
from autoglm_edge_protocol.errors import ProtocolError

log = logging.getLogger(__name__)

LOOK_S = 600.0
"""How often it is looked whether the certificate is due: a clock may be set while the agent runs."""
ANSWER_S = 60.0
PAUSES = Backoff(60.0, 6 * 3600.0)


def is_due(identity: Identity, now: float) -> bool:
    """Tell whether half of the certificate's life is over."""
    return now >= (identity.not_before + identity.not_after) / 2


class Renewal:
    """Keeps the certificate of an identity from running out.

    Args:
        send: publishes the request. Raises LinkError.
        use: lets the next connection show the new certificate. Raises LinkError.
        now: returns the Unix time in seconds, as far as it is known.
    """

    def __init__(
        self,
        folder: IdentityFolder,
        send: Callable[[bytes], Awaitable[None]],
        use: Callable[[], None],
        now: Callable[[], float],
        key: AskKey = ask_key,
    ) -> None:
        self._folder = folder
        self._send = send
        self._use = use
        self._now = now
        self._key = key
        self._in_use = True
        """Whether the next connection shows the certificate that is on the disk."""
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(4)

    def take(self, payload: bytes) -> None:
        """Take in an answer; never more than a few are kept."""
        if not self._answers.full():
            self._answers.put_nowait(payload)

    async def run(self) -> None:
        """Renew, for ever."""
        attempt = 0
        while True:
            try:
                await self._look()
                attempt = 0
                await asyncio.sleep(LOOK_S)
            except (Hindrance, StateError, ProtocolError, OSError) as error:
                log.warning("the certificate is not renewed yet: %s", error)
                await asyncio.sleep(PAUSES.pause_s(attempt))
                attempt += 1

    async def _look(self) -> None:
        identity = self._folder.read()
        if identity is not None and is_due(identity, self._now()):
            grant = await self._ask(identity)
            await self._check(identity, grant)
            renewed = identity.model_copy(update={"not_before": grant.not_before, "not_after": grant.not_after})
            self._in_use = False
            self._folder.renew(renewed, grant.certificate)
        if not self._in_use:
            self._use()
            self._in_use = True
            log.info("the certificate is renewed")

    async def _ask(self, identity: Identity) -> Grant:
        asked = await self._key(self._folder.key, KeyOrder())
        assert asked.csr is not None
        while not self._answers.empty():
            self._answers.get_nowait()
        await self._send(RenewalRequest(device=identity.device, csr=asked.csr).to_bytes())
        try:
            answer = parse(RenewalAnswer, await asyncio.wait_for(self._answers.get(), ANSWER_S))
        except (asyncio.TimeoutError, TimeoutError):
            raise Hindrance("no-answer", f"the fleet did not answer within {ANSWER_S:.0f} s") from None
        if answer.grant is None:
            assert answer.refusal is not None
            raise Hindrance(answer.refusal.code, f"the fleet refuses: {answer.refusal.message}")
        return answer.grant

    async def _check(self, identity: Identity, grant: Grant) -> None:
        try:
            given = Given(
                certificate=grant.certificate,
                authority=self._folder.authority.read_text(encoding="ascii"),
                device=identity.device,
            )
        except ValueError:
            raise StateError(f"{self._folder.authority} is damaged, and nothing can be checked by it") from None
        if (problem := (await self._key(self._folder.key, KeyOrder(given=given))).problem) is not None:
            raise Hindrance("bad-certificate", problem)
        if is_due(identity.model_copy(update=grant.model_dump(include={"not_before", "not_after"})), self._now()):
            raise Hindrance("bad-certificate", "the certificate that was sent is as old as the one that is here")
