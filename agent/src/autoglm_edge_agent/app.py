"""The agent: wires the parts together and runs them until it is told to stop.

uplink ----> entrance ----> updater ----> supervisor ----> worker processes
   ^         (trust)           |              |
   |                           v              v
reports <---------------- slots, record     beats ---> telemetry
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from typing import Any

from autoglm_edge_agent.board import read_facts
from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.commands import Commands
from autoglm_edge_agent.config import Config
from autoglm_edge_agent.enrolment.identity import IdentityFolder
from autoglm_edge_agent.enrolment.recovery import identity_known_again
from autoglm_edge_agent.enrolment.renewal import Renewal
from autoglm_edge_agent.errors import StateError
from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.inference.listeners import (
    address_text,
    close_listeners,
    endpoints,
    open_listeners,
    reserve_grpc,
)
from autoglm_edge_agent.inference.probed import Shelf
from autoglm_edge_agent.inference.probing import Prober
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_agent.reports import Reports
from autoglm_edge_agent.storage.directory import StateDirectory
from autoglm_edge_agent.storage.ledger import Ledger
from autoglm_edge_agent.storage.store import PROBES, Store
from autoglm_edge_agent.systemd.inherited import inherited_sockets
from autoglm_edge_agent.systemd.notify import Notifier
from autoglm_edge_agent.systemd.status import status_text
from autoglm_edge_agent.systemd.watchdog import Watchdog
from autoglm_edge_agent.telemetry.reporter import TelemetryReporter
from autoglm_edge_agent.trust.entrance import Entrance
from autoglm_edge_agent.updates.beside import Beside
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.fit import Capabilities
from autoglm_edge_agent.updates.policy import TransferPolicy
from autoglm_edge_agent.updates.updater import Updater
from autoglm_edge_agent.uplink import Uplink
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState, Installed, ReportedState
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import LinkError

log = logging.getLogger(__name__)

FLUSH_S = 3.0
START_S = 60.0
"""What a start takes beside loading the model."""
CONNECT_AGAIN_S = 60.0
"""After the files of TLS could not be used."""


class Agent:
    """One device's agent. Raises StateError when it is made."""

    def __init__(self, config: Config, disk: Disk | None = None) -> None:
        disk = disk or Disk()
        self._notifier = Notifier.from_environment()
        self._config = config
        self._facts = read_facts()
        self._directory = StateDirectory(config.storage.directory, disk)
        self._grpc = reserve_grpc(config.inference)
        self._listeners = open_listeners(config.inference, inherited_sockets())
        self._store = Store(config.storage.directory, disk)
        self._reports = Reports(self._build_report, lambda data: self._uplink.send_report(data))
        self._uplink = Uplink(config, self._directory.next_session(config.broker.time_floor), self._changed)
        self._supervisor = Supervisor(
            lambda installed: self._store.bundle_path(installed.bundle),
            self._listeners,
            config.inference.threads,
            config.inference.trial_timeout_s,
            config.inference.run_timeout_s,
            self._on_beat,
            self._changed,
            config.inference.serving(None if self._grpc is None else address_text(self._grpc)),
            standby=config.inference.standby,
        )
        if config.inference.probe.enabled:
            shelf = Shelf(config.storage.directory / PROBES, disk)
            self._supervisor.prober = Prober(
                lambda installed: self._store.bundle_path(installed.bundle), shelf, config.inference.probe.terms()
            )
        self._entrance = Entrance(
            config, disk, self._uplink, self._desire, lambda: self._updater.report(), self._reports.changed
        )
        fetcher = self._fetcher(config.transfer.policy())
        self._updater = Updater(
            self._store,
            fetcher,
            self._supervisor,
            Capabilities(self._facts.runtimes, self._facts.memory_bytes, measures=config.inference.probe.enabled),
            config.storage.reserve_bytes,
            config.probation,
            self._on_update,
        )
        self._telemetry = TelemetryReporter(
            config.device.name, config.telemetry, config.storage.directory, self._uplink.send_telemetry
        )
        ledger = Ledger(config.storage.directory / "answers.json", disk)
        actions = {"ping": self._ping, "rollback": self._roll_back, "restart-worker": self._restart_worker}
        self._commands = Commands(
            config.device.name, ledger, actions, self._uplink.send_answer, self._entrance.time or time.time
        )
        pulses = {
            "the supervisor": self._supervisor.moving,
            "the worker": self._supervisor.beating,
            "the choice of another model": self._supervisor.deciding,
            "the updater": self._updater.pulse,
        }
        self._watchdog = Watchdog(self._notifier, pulses, self._status)
        self._supervisor.on_failure = lambda installed, _reason: self._updater.observation.crashed(installed)
        self._supervisor.shadowing.on_beat = self._updater.observation.shadow_beat
        self._uplink.on_desired = self._entrance.intake.put
        self._uplink.on_command = self._on_command
        self._renewal = self._make_renewal(disk)
        self._uplink.fetchers = (fetcher, self._entrance.fetcher)

    def _make_renewal(self, disk: Disk) -> Renewal | None:
        path = self._config.device.identity
        if path is None or self._config.unidentified is not None:
            return None
        folder, now = IdentityFolder(path, disk), self._entrance.time or time.time
        renewal = Renewal(folder, self._uplink.send_renewal, self._uplink.renew_certificate, now)
        self._uplink.on_renewed = renewal.take
        return renewal

    def _fetcher(self, policy: TransferPolicy) -> Fetcher:
        def progressed(sha256: str, verified_bytes: int) -> None:
            self._updater.progressed(sha256, verified_bytes)

        def found(sha256: str, found_bytes: int, verified_bytes: int) -> None:
            self._updater.found(sha256, found_bytes, verified_bytes)

        beside = Beside(self._entrance.depots, policy, progressed, found)
        return Fetcher(self._store, self._uplink, progressed, policy, beside)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        stopped = asyncio.create_task(stop.wait())
        tasks = [asyncio.create_task(self._start())]
        try:
            await self._until(stopped, tasks, asyncio.ALL_COMPLETED)
            if not stop.is_set():
                tasks += [asyncio.create_task(part) for part in self._parts()]
                await self._until(stopped, tasks[1:], asyncio.FIRST_COMPLETED)
        finally:
            await cancel(stopped, *tasks)
            await asyncio.gather(stopped, *tasks, return_exceptions=True)
            if stop.is_set():  # an end by a defect may be what the present step has brought about
                self._updater.pause()
            await self._close()

    async def _start(self) -> None:
        # Before anything is loaded: a model that brings the device down is given up here.
        self._updater.resume()
        self._entrance.note_update()
        # The old model serves before the network is even looked for.
        self._notifier.extend_start(START_S + self._config.inference.trial_timeout_s)
        await self._supervisor.switch(self._updater.slots.current)
        # Also where it does not serve: to go back to the one before, or to get another, is the agent's own work.
        self._notifier.ready()
        self._changed()
        device, serving = self._config.device, self._supervisor.serving
        log.info("device %s of fleet %s, broker %s", device.name, device.fleet, self._config.broker.address())
        log.info(
            "%s on %s",
            serving.bundle.id if serving else "no model yet",
            ", ".join(endpoints(self._listeners, self._grpc)),
        )

    async def _connect(self) -> None:
        """Begin to connect. What is here serves, whatever has become of the files that prove who we are."""
        device, broker = self._config.device, self._config.broker
        if self._config.unidentified is not None:
            assert device.identity is not None
            given = broker.model_dump(mode="json", exclude_none=True)
            await identity_known_again(IdentityFolder(device.identity, Disk()), given, self._config.unidentified)
            raise StateError("the identity can be read again, and is read by the next start")
        while True:
            try:
                await self._uplink.start()
                break
            except LinkError as error:
                log.error("%s", error)  # noqa: TRY400 - a line says it all
                await asyncio.sleep(CONNECT_AGAIN_S)
        await asyncio.get_running_loop().create_future()  # a part that ends has failed

    def _parts(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._supervisor.keep(self._updater.unserviceable),
            self._connect(),
            self._updater.run(),
            self._reports.run(),
            self._commands.run(),
            self._telemetry.run(),
            self._watchdog.run(),
            *self._entrance.parts(),
            *([self._renewal.run()] if self._renewal else []),
        ]

    async def _until(self, stopped: asyncio.Task[Any], tasks: list[asyncio.Task[None]], return_when: str) -> None:
        """Wait for the tasks or for the order to stop; raises what a task raised.

        A part that ends has failed: let it be seen, the service manager starts us again.
        """
        work = asyncio.ensure_future(asyncio.wait(tasks, return_when=return_when))
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await cancel(work)
        for task in tasks:
            if task.done():
                task.result()

    async def _close(self) -> None:
        self._notifier.stopping()
        await self._supervisor.close()
        if self._uplink.connected:
            await self._telemetry.flush(FLUSH_S)
        await self._uplink.stop()
        close_listeners(self._listeners)
        if self._grpc is not None:
            self._grpc.close()
        self._directory.close()

    # what comes in ----

    async def _desire(self, desired: DesiredState) -> None:
        if not await self._updater.desire(desired):
            self._reports.changed()

    async def _on_command(self, message: bytes) -> None:
        command = await self._entrance.intake.command(message)
        if command is not None:
            await self._commands.take(command)

    def _on_update(self) -> None:
        self._entrance.note_update()
        self._changed()

    def _changed(self) -> None:
        self._reports.changed()
        self._notifier.status(self._status())

    def _status(self) -> str:
        current, serving = self._updater.slots.current, self._supervisor.serving
        text = status_text(current, serving, self._updater.report(), connected=self._uplink.connected)
        return f"{text}; its identity is damaged" if self._config.unidentified is not None else text

    def _on_beat(self, installed: Installed, beat: Beat) -> None:
        self._telemetry.windows.add(installed, beat)
        if installed == self._supervisor.serving:
            self._updater.observation.beat(installed, beat, time.monotonic())

    # what goes out ----

    def _build_report(self, sequence: int) -> ReportedState:
        slots = self._updater.slots
        serving, prober = self._supervisor.serving, self._supervisor.prober
        return ReportedState(
            device=self._config.device.name,
            session=self._uplink.session,
            sequence=sequence,
            at=time.time(),
            facts=self._facts,
            deployment=self._updater.report(),
            current=slots.current,
            previous=slots.previous,
            serving=serving is not None and serving == slots.current,
            endpoints=endpoints(self._listeners, self._grpc),
            trust=self._entrance.trust(),
            acceleration=prober.acceleration(slots.current) if prober is not None and slots.current else None,
        )

    # commands ----

    async def _ping(self, _command: Command) -> dict[str, str]:
        return {"agent": self._facts.agent_version, "time": f"{time.time():.3f}"}

    async def _roll_back(self, command: Command) -> dict[str, str]:
        installed = await self._updater.roll_back(command.command_id)
        return {"bundle": str(installed.bundle.id), "variant": installed.variant}

    async def _restart_worker(self, _command: Command) -> dict[str, str]:
        await self._supervisor.restart()
        serving = self._supervisor.serving
        return {"bundle": str(serving.bundle.id) if serving else "none"}
