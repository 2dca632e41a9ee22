"""The daemon: one event loop that joins the link, the database, the dispatcher and the block server.

A control message is acknowledged to the broker after its commit, so nothing is lost when the process dies; everything
a device can say is survived: refused, noted in one line, and forgotten.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from autoglm_edge_fleet.blocks import BlockServer
from autoglm_edge_fleet.bundles import object_size
from autoglm_edge_fleet.commands import take_answer
from autoglm_edge_fleet.config import FleetConfig, read_config
from autoglm_edge_fleet.database import DATABASE_FILE, Database
from autoglm_edge_fleet.database_thread import DatabaseThread
from autoglm_edge_fleet.deployments import devices_that_lack
from autoglm_edge_fleet.devices import Change, count_traffic, take_presence, take_report
from autoglm_edge_fleet.dispatch import Dispatcher
from autoglm_edge_fleet.enrolment.reception import Reception
from autoglm_edge_fleet.enrolment.registrar import Registrar
from autoglm_edge_fleet.enrolment.sightings import sight
from autoglm_edge_fleet.errors import FleetError, RefusedReport, StorageError, TrustError
from autoglm_edge_fleet.inbound import Report, read_credit, read_fetch, read_report
from autoglm_edge_fleet.keys import KEYS_FOLDER, KeyRing
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.locks import exclusive
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.printable import printable
from autoglm_edge_fleet.repository import REPOSITORY_FOLDER, Repository
from autoglm_edge_fleet.telemetry import prune_telemetry, take_telemetry
from autoglm_edge_fleet.trust.catalogue import ShelfAndObjects
from autoglm_edge_fleet.trust.director import Sealing, Unsealed
from autoglm_edge_fleet.trust.renewal import Renewal
from autoglm_edge_protocol.brokers import announced_packet_bytes, block_bytes_for
from autoglm_edge_protocol.commands import Answer
from autoglm_edge_protocol.deployment import DeploymentReport, Presence, ReportedState
from autoglm_edge_protocol.errors import LinkError, ProtocolError
from autoglm_edge_protocol.mqtt import Link, Message
from autoglm_edge_protocol.topics import Channel, Topic, fleet_filters, parse_topic

Say = Callable[[str], None]
"""Takes one line about something noteworthy."""

_RETRY_S = 1.0
_METADATA_MISSING = "metadata-missing"
"""Why a device turns an order away that it got when what its catalogue names was long replaced."""


async def serve(
    directory: Path, say: Say, stop: asyncio.Event, passphrases: Passphrases | None = None, insecure: bool = False
) -> None:
    """Serve the fleet in `directory` until `stop` is set. Keeps trying while there is no broker.

    Without `passphrases` only keys that are not encrypted can be used. `insecure`: sign nothing.

    Raises:
        NoTrust: the fleet has no keys, and `insecure` is not set. WrongPassphrase, BadMetadata: it cannot sign.
        InUse: another process serves this fleet.
        NoFleetHere, BadSettings, StorageError, LinkError: it cannot be begun.
    """
    config = read_config(directory)
    refusal = f"another process serves the fleet in {directory}; stop it first"
    with exclusive(directory / "serve.lock", refusal):
        renewal = Renewal(directory, config.name, KeyRing(directory / KEYS_FOLDER, passphrases or Passphrases()))
        if not insecure:
            renewal.open()
        elif renewal.is_founded:
            say("INSECURE: desired states and commands are NOT signed, although the fleet has keys")
        else:
            say("INSECURE: this fleet has no keys, and desired states and commands are NOT signed")
        service = Service(config, directory, say, None if insecure else renewal, passphrases or Passphrases())
        try:
            await service.run(stop)
        finally:
            await service.close()


class Service:
    """One fleet being served."""

    def __init__(
        self, config: FleetConfig, directory: Path, say: Say, renewal: Renewal | None, passphrases: Passphrases
    ) -> None:
        address = config.address(directory)
        self._address = address
        self._broker = str(address)
        self._say = say
        self._database = DatabaseThread(Database(directory / DATABASE_FILE))
        self._fleet = config.name
        client_id = f"autoglm-fleet-{config.name}"
        self._link = Link(address, client_id, fleet_filters(config.name), self._on_message, self._on_connected)
        self._renewal = renewal
        self._reloading = asyncio.Lock()
        self._repository = repository = Repository(directory / REPOSITORY_FOLDER)
        sealing: Sealing = renewal.sealing if renewal else Unsealed()
        self._dispatcher = Dispatcher(config.name, self._database, self._link, say, sealing)
        objects = ShelfAndObjects(renewal.shelf, repository) if renewal else repository
        self._blocks = BlockServer(
            config.name, objects, self._link, say, block_bytes_for(config.packet_bytes), config.publishes_per_s
        )
        said = functools.partial(self._say_once, about="certificates")
        registrar = Registrar(directory, config, passphrases, said)
        self._reception = Reception(config.name, registrar, self._database, self._link, said)
        self._changed = True
        self._data_version = -1
        self._sizes: dict[str, int] = {}
        """Of objects that were asked for, as the database was last seen: a device asks for a file again and again."""
        self._last_said: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await self._link.start()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._blocks.run()),
                group.create_task(self._repeat(self._watch, FLEET_LIMITS.poll_s)),
                group.create_task(self._repeat(self._flush, FLEET_LIMITS.flush_s)),
                group.create_task(self._repeat(self._prune, FLEET_LIMITS.prune_s)),
                group.create_task(self._repeat(self._renew, FLEET_LIMITS.renew_s)),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """Disconnect, write the counters, close the database."""
        await self._link.stop()
        try:
            await self._flush_traffic()
        except StorageError as error:
            self._say_once(str(error))
        self._database.close()
        self._repository.close()

    # what is done again and again ----

    async def _repeat(self, work: Callable[[], Awaitable[None]], period_s: float) -> None:
        while True:
            try:
                await work()
            except TrustError as error:
                self._changed = True
                self._say_once(str(error), "trust")
            except (LinkError, FleetError, OSError) as error:
                self._changed = True
                self._say_once(str(error))
            await asyncio.sleep(period_s)

    async def _renew(self) -> None:
        if self._renewal is None:
            return
        renewed = await asyncio.to_thread(self._renewal.renew)
        if renewed.roles:
            self._say(f"signed again: {', '.join(renewed.roles)}")
        if renewed.problems:
            self._say_once("; ".join(renewed.problems), "renewal")
        await self._take_metadata()
        self._changed = True  # what time alone makes due: see `Director.epoch`

    async def _take_metadata(self) -> None:
        if self._renewal is None:
            return
        async with self._reloading:
            if await asyncio.to_thread(self._renewal.reload):
                self._dispatcher.sealing = self._renewal.sealing
                self._changed = True

    async def _watch(self) -> None:
        version = await self._database.run(Database.data_version)
        if version != self._data_version:
            self._data_version, self._changed = version, True
            self._sizes.clear()
            await self._take_metadata()
        if not self._link.connected:
            if self._link.last_problem:
                self._say_once(f"no connection to {self._broker}: {self._link.last_problem}; trying again")
            return
        if self._changed:
            self._changed = False
            await self._dispatcher.publish_desired()
            await self._dispatcher.send_commands()
            await self._reception.answer_approved()

    async def _flush(self) -> None:
        await self._flush_traffic()
        if self._link.connected:
            await self._dispatcher.send_commands()

    async def _flush_traffic(self) -> None:
        traffic = self._blocks.take_traffic()
        if not traffic:
            return
        try:
            await self._database.run(count_traffic, traffic)
        except StorageError:
            self._blocks.add_traffic(traffic)
            raise

    async def _prune(self) -> None:
        await self._database.run(prune_telemetry, time.time())

    def _say_once(self, line: str, about: str = "") -> None:
        """Say a line, unless it was the last one about its subject."""
        if line != self._last_said.get(about):
            self._say(line)
        self._last_said[about] = line

    # what comes in ----

    async def _on_connected(self) -> None:
        self._say_once(f"connected to {self._broker}")
        self._last_said.pop("", None)
        self._dispatcher.connected()
        self._changed = True
        await self._learn_packet_size()

    async def _learn_packet_size(self) -> None:
        """Let blocks be as large as the broker says to carry. The settings may only say less."""
        client_id = f"autoglm-fleet-{self._fleet}-asks"
        packet_bytes = await asyncio.to_thread(announced_packet_bytes, self._address, client_id)
        try:
            block_bytes = block_bytes_for(packet_bytes)
        except ValueError as error:
            self._say_once(f"{self._broker}: {error}")
            return
        if block_bytes < self._blocks.block_bytes:
            self._say(f"{self._broker} carries {packet_bytes} bytes at most: blocks of {block_bytes} bytes")
            self._blocks.block_bytes = block_bytes

    async def _on_message(self, message: Message) -> None:
        try:
            topic = parse_topic(message.topic)
            if topic.fleet != self._fleet:
                return
            if topic.channel is Channel.FETCH:
                await self._take_fetch(topic.device, message.payload)
            elif topic.channel in (Channel.ENROLMENT, Channel.RENEWAL):
                await self._reception.take(topic, message.payload)
            elif topic.channel is Channel.CREDIT:
                self._blocks.credit(topic.device, read_credit(message.payload))
            elif message.payload:  # an empty retained message is a deletion
                await self._take(read_report(topic, message.payload), live=not message.retained)
        except (LinkError, StorageError) as error:
            self._say_once(str(error))
        except (ProtocolError, RefusedReport) as error:
            self._say_once(f"refused from {printable(message.topic)}: {printable(str(error))}")

    async def _take_fetch(self, device: str, payload: bytes) -> None:
        request = read_fetch(payload)
        metadata = self._renewal.shelf.find(request.sha256) if self._renewal else None
        size = len(metadata) if metadata else await self._size_of(request.sha256)
        expected: frozenset[str] = frozenset()
        if request.follow is not None:
            expected = await self._database.run(devices_that_lack, request.sha256)
        refusal = self._blocks.request(device, request, size, expected)
        if refusal is None:
            return
        self._say_once(f"{device}: not sent, {refusal.reason.message} ({request.sha256[:12]}...)")
        self._link.send_block(str(Topic(self._fleet, device, Channel.REFUSAL)), refusal.to_bytes())

    async def _size_of(self, sha256: str) -> int | None:
        size = self._sizes.get(sha256)
        if size is None:
            size = await self._database.run(object_size, sha256)
            if size is not None:
                self._sizes[sha256] = size
        return size

    async def _take(self, report: Report, live: bool) -> None:
        """Commit a report; while the database cannot be written, the broker keeps the rest."""
        while True:
            try:
                return await self._commit(report, live)
            except StorageError as error:
                self._say_once(f"a report of {report.device} cannot be stored: {error}; trying again")
                await asyncio.sleep(_RETRY_S)

    async def _commit(self, report: Report, live: bool) -> None:
        if isinstance(report, Presence):
            self._note_presence(report.device, await self._database.run(take_presence, report, live))
            if live and report.online and report.board:
                finding = await self._database.run(sight, report.device, report.board)
                if finding is not None:
                    self._say(f"{report.device}: {finding.value}")
        elif isinstance(report, ReportedState):
            self._note_change(report.device, await self._database.run(take_report, report, live))
        elif isinstance(report, Answer):
            if queued := await self._database.run(take_answer, report):
                reason = f": {printable(report.reason.message)}" if report.reason else ""
                self._say(f"{report.device}: command {queued.command.name} {report.outcome.value}{reason}")
        else:
            await self._database.run(take_telemetry, report)

    def _note_presence(self, device: str, online: bool | None) -> None:
        if online is None:
            return
        self._say(f"{device}: {'online' if online else 'offline'}")
        if not online:
            self._blocks.drop(device)

    def _note_change(self, device: str, change: Change | None) -> None:
        if change is None:
            return
        if change.refusal:
            said = f"{printable(change.refusal.message)} ({change.refusal.code})"
            self._say(f"{device}: turned away what it was sent: {said}")
            if change.refusal.code == _METADATA_MISSING:
                self._dispatcher.give_again(device)
                self._changed = True
        after = change.after
        if (after.generation if after else 0) != change.generation:
            self._changed = True  # the device may have lost its memory: see what it must be told
        if after is None or (change.before and _step(change.before) == _step(after)):
            return
        bundle = after.bundle.id if after.bundle else "no model"
        reason = f": {printable(after.reason.message)} ({after.reason.code})" if after.reason else ""
        self._say(f"{device}: {bundle} (generation {after.generation}): {printable(after.phase, 64)}{reason}")


def _step(report: DeploymentReport) -> tuple[int, str]:
    return report.generation, report.phase
