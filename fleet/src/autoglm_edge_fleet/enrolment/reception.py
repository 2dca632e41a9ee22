"""Where boards and devices ask for certificates over the wire: messages in, the registrar's answers out."""

from __future__ import annotations

from collections.abc import Callable

from autoglm_edge_fleet.database_thread import DatabaseThread
from autoglm_edge_fleet.enrolment.registrar import Registrar, Reply
from autoglm_edge_fleet.errors import BadSettings, EnrolmentError, TrustError
from autoglm_edge_protocol.mqtt import Link
from autoglm_edge_protocol.topics import Channel, Topic

_PUBLISH_S = 5.0


class Reception:
    """Answers for one fleet. `say` takes a line about why nobody can be answered now."""

    def __init__(
        self, fleet: str, registrar: Registrar, database: DatabaseThread, link: Link, say: Callable[[str], None]
    ) -> None:
        self._fleet = fleet
        self._registrar = registrar
        self._database = database
        self._link = link
        self._say = say

    async def take(self, topic: Topic, payload: bytes) -> None:
        """Answer a request for a first certificate or for the next one.

        Raises ProtocolError, RefusedReport, StorageError, LinkError.
        """
        renews = topic.channel is Channel.RENEWAL
        answer = self._registrar.renew if renews else self._registrar.enrol
        try:
            reply = await self._database.run(lambda database: answer(database, topic.device, payload))
        except (EnrolmentError, TrustError, BadSettings) as error:
            # Who asks goes on asking, and is answered once the key is at hand.
            self._say(f"a certificate is asked for and cannot be given: {error}")
            return
        await self._send(Channel.RENEWED if renews else Channel.ENROLLED, reply)

    async def answer_approved(self) -> None:
        """Answer the boards that have been approved since. Raises FleetError, LinkError, OSError."""
        for reply in await self._database.run(lambda database: self._registrar.approved(database)):
            await self._send(Channel.ENROLLED, reply)

    async def _send(self, channel: Channel, reply: Reply) -> None:
        await self._link.publish(str(Topic(self._fleet, reply.to, channel)), reply.payload, timeout_s=_PUBLISH_S)
