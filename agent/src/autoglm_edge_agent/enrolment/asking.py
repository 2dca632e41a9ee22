"""Asks a fleet over MQTT to make this board a device, for days if need be.

Each attempt is a connection of its own, under a name made up for it. Between attempts it waits ever longer, and not
as long as the board beside it: after a power cut a hundred boards begin together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from autoglm_edge_agent.enrolment.answers import Issued, Meaning, Pending, Refused, Worthless, meaning_of
from autoglm_edge_protocol.backoff import Backoff
from autoglm_edge_protocol.claims import Claim, prove
from autoglm_edge_protocol.enrolment import Board, CertificateRequest, EnrolmentRequest
from autoglm_edge_protocol.errors import LinkError
from autoglm_edge_protocol.mqtt import BrokerAddress, Link, Message
from autoglm_edge_protocol.topics import Channel, Topic, board_filters

log = logging.getLogger(__name__)

CONNECT_S = 30.0
LOOK_S = 1.0
"""How often it is looked, while connecting, whether it has failed."""
ANSWER_S = 20.0
"""How long an answer may take that does not wait for a person."""
APPROVAL_S = 600.0
"""How often a board that waits for a person asks again, should the answer have got lost."""
PAUSES = Backoff(2.0, 300.0)
_MOST_ANSWERS = 16
"""That wait to be looked at."""

Say = Callable[[str], None]


class Asker:
    """Asks with one claim.

    Args:
        say: told what is waited for, once until it changes.
    """

    def __init__(self, claim: Claim, csr: str, name: str, board: Board, say: Say) -> None:
        self._claim = claim
        self._csr = csr
        self._name = name
        self._board = board
        self._say = say
        self.waits_for = "the first answer"
        """What stands in the way."""

    async def ask(self) -> Issued | Refused:
        """Ask until there is an answer that ends it. Raises LinkError when the claim's certificates are unusable."""
        attempt = 0
        with _certificates(self._claim) as ca_file:
            address = replace(
                BrokerAddress.parse(self._claim.broker_url), ca_file=ca_file, time_floor=self._claim.created_at
            )
            while True:
                meaning = await self._attempt(address)
                if isinstance(meaning, Issued | Refused):
                    return meaning
                await asyncio.sleep(PAUSES.pause_s(attempt))
                attempt = 0 if isinstance(meaning, Pending) else attempt + 1

    async def _attempt(self, address: BrokerAddress) -> Meaning:
        request = CertificateRequest(
            fleet=self._claim.fleet,
            request_id=f"enrol-{os.urandom(16).hex()}",
            csr=self._csr,
            name=self._name,
            board=self._board,
        )
        answers: asyncio.Queue[bytes] = asyncio.Queue(_MOST_ANSWERS)

        async def take(message: Message) -> None:
            if not answers.full():
                answers.put_nowait(message.payload)

        topic = str(Topic(self._claim.fleet, request.request_id, Channel.ENROLMENT))
        link = Link(address, request.request_id, board_filters(self._claim.fleet, request.request_id), take)
        link.keep_no_session()
        await link.start()
        try:
            await _connected(link)
            asking = EnrolmentRequest(claim_id=self._claim.claim_id, request=prove(request, self._claim.secret))
            await link.publish(topic, asking.to_bytes(), timeout_s=ANSWER_S)
            return await self._answered(answers, request)
        except LinkError as error:
            self._wait_for(f"the broker: {error}")
            return Worthless(str(error))
        finally:
            await link.stop()

    async def _answered(self, answers: asyncio.Queue[bytes], request: CertificateRequest) -> Meaning:
        """Return the answer that counts, or the last that did not."""
        meaning: Meaning = Worthless("no answer")
        # Of all the answers together: whoever has the broker may send worthless ones for ever.
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                payload = await asyncio.wait_for(answers.get(), max(0.0, deadline - time.monotonic()))
            except (asyncio.TimeoutError, TimeoutError):
                if meaning == Worthless("no answer"):
                    self._wait_for(f"the fleet {self._claim.fleet}, which does not answer: does `fleet serve` run?")
                return meaning
            meaning = meaning_of(payload, self._claim, request)
            if isinstance(meaning, Issued | Refused):
                return meaning
            if isinstance(meaning, Pending):
                deadline = time.monotonic() + APPROVAL_S
                self._wait_for(f"the fleet's owner, who has to approve {meaning.name}: fleet devices approve")
            else:
                self._wait_for(f"a word of the fleet: {meaning.why}")

    def _wait_for(self, what: str) -> None:
        if what != self.waits_for:
            self._say(f"waits for {what}")
        self.waits_for = what


async def _connected(link: Link) -> None:
    """Wait until the broker lets us in, or it is known what stands in the way. Raises LinkError."""
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            return await link.wait_connected(LOOK_S)
        except LinkError:
            if link.last_problem is not None or time.monotonic() >= deadline:
                raise


@contextlib.contextmanager
def _certificates(claim: Claim) -> Iterator[Path | None]:
    """Give the claim's certificates as a file, as OpenSSL wants them; it ends with the context."""
    if claim.broker_ca is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(claim.broker_ca)
        file.flush()
        yield Path(file.name)
