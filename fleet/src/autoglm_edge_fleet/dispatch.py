"""Giving the broker what the database says: desired states and commands, each no more often than needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from autoglm_edge_fleet.commands import Pending, Sent, is_due, pending_commands
from autoglm_edge_fleet.database_thread import DatabaseThread
from autoglm_edge_fleet.deployments import mark_published, open_standings
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.registry import Standing, needs_publication
from autoglm_edge_fleet.trust.director import Sealing
from autoglm_edge_protocol.errors import LinkError
from autoglm_edge_protocol.mqtt import IN_FLIGHT, Link
from autoglm_edge_protocol.topics import RETAINED, Channel, Topic


class Dispatcher:
    """Publishes for one fleet over one link."""

    def __init__(
        self, fleet: str, database: DatabaseThread, link: Link, say: Callable[[str], None], sealing: Sealing
    ) -> None:
        self.sealing = sealing
        self._fleet = fleet
        self._database = database
        self._link = link
        self._say = say
        self._connection = 0
        self._acknowledged: dict[str, int] = {}
        self._sent: dict[str, Sent] = {}

    def connected(self) -> None:
        """Begin a new connection: what the last one has acknowledged may be lost."""
        self._connection += 1
        self._acknowledged.clear()

    def give_again(self, device: str) -> None:
        """Give a device its order anew: the metadata that the last one names could not be had any more."""
        self._acknowledged.pop(device, None)

    async def publish_desired(self) -> None:
        """Publish every desired state that needs it. Raises LinkError, StorageError, KeyUnavailable."""
        epoch = self.sealing.epoch(time.time())
        standings = await self._database.run(open_standings, self._fleet, epoch)
        due = [s for s in standings if needs_publication(s, self._acknowledged.get(s.desired.device), epoch)]
        for start in range(0, len(due), IN_FLIGHT):
            await self._publish_states(due[start : start + IN_FLIGHT], epoch)

    async def _publish_states(self, due: Sequence[Standing], epoch: str) -> None:
        results = await asyncio.gather(*(self._publish_state(each) for each in due), return_exceptions=True)
        done = {s.desired.device: s.desired.generation for s, r in zip(due, results, strict=True) if r is None}
        if done:
            await self._database.run(mark_published, done, epoch)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _publish_state(self, standing: Standing) -> None:
        desired = standing.desired
        connection = self._connection
        # On a thread: a key may be in a module or a service that takes its time.
        payload = await asyncio.to_thread(self.sealing.desired, desired, time.time())
        await self._publish(desired.device, Channel.DESIRED, payload)
        if connection == self._connection:
            self._acknowledged[desired.device] = desired.generation
        if standing.published_generation < desired.generation and desired.bundle:
            self._say(f"{desired.device}: told to run {desired.bundle.id} (generation {desired.generation})")

    async def send_commands(self) -> None:
        """Send every command that is due. Raises LinkError, StorageError, KeyUnavailable."""
        pending = await self._database.run(pending_commands)
        self._sent = {p.command.command_id: s for p in pending if (s := self._sent.get(p.command.command_id))}
        for each in pending:
            if is_due(each, self._sent.get(each.command.command_id), self._connection, time.time()):
                await self._send_command(each)

    async def _send_command(self, pending: Pending) -> None:
        command, connection = pending.command, self._connection
        payload = await asyncio.to_thread(self.sealing.command, command, time.time())
        await self._publish(command.device, Channel.COMMAND, payload)
        if command.command_id not in self._sent:
            self._say(f"{command.device}: command {command.name} sent")
        self._sent[command.command_id] = Sent(connection, pending.session, time.time())

    async def _publish(self, device: str, channel: Channel, payload: bytes) -> None:
        if not self._link.connected:
            raise LinkError("the connection was lost")
        topic = str(Topic(self._fleet, device, channel))
        retain, timeout_s = channel in RETAINED, FLEET_LIMITS.publish_timeout_s
        await self._link.publish(topic, payload, retain=retain, timeout_s=timeout_s)
