"""A fleet, opened: everything that its owner can ask for or order, as typed values.

    with Fleet.open(Path("my-fleet")) as fleet:
        fleet.publish(Path("digits-1.0.0.bundle"))
        issued = fleet.deploy(BundleId.parse("digits@1.0.0"), fleet.device_names())
        ended = fleet.wait_for_deployments(issued, timeout_s=60)

Orders are written to the database; the daemon (`service.serve`), in this or another process, carries them out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from autoglm_edge_fleet.audit import AuditEntry, first_broken, list_audit
from autoglm_edge_fleet.broker_access.folder import FLEET_CERTIFICATE, FLEET_KEY
from autoglm_edge_fleet.bundles import Publication, PublishedBundle, list_bundles, list_objects, publish, require_bundle
from autoglm_edge_fleet.commands import QueuedCommand, find_command, queue_command
from autoglm_edge_fleet.config import DEFAULT_BROKER, SETTINGS_FILE, FleetConfig, read_config, write_config
from autoglm_edge_fleet.database import DATABASE_FILE, Database
from autoglm_edge_fleet.deployments import Deployment, deploy, find_deployments, newest_deployments
from autoglm_edge_fleet.devices import Device, Traffic, device_names, list_devices, shared_traffic
from autoglm_edge_fleet.enrolment.authority import CERTIFICATE_FILE, FOLDER
from autoglm_edge_fleet.enrolment.office import Enrolment
from autoglm_edge_fleet.errors import AlreadyAFleet
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.repository import REPOSITORY_FOLDER, Repository
from autoglm_edge_fleet.telemetry import TelemetrySummary, telemetry_summaries
from autoglm_edge_fleet.trust.fleet_trust import FleetTrust
from autoglm_edge_protocol.bundle import Progress, opened
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.names import BundleId
from autoglm_edge_protocol.probation import ProbationTerms

_POLL_S = 0.1


@dataclass(frozen=True)
class DeviceStatus:
    """A device with its newest deployment and what it measured lately."""

    device: Device
    deployment: Deployment | None
    telemetry: TelemetrySummary | None


class Fleet:
    """The fleet in a folder. Not for several threads at a time."""

    def __init__(
        self, directory: Path, config: FleetConfig, database: Database, passphrases: Passphrases | None = None
    ) -> None:
        self.directory = directory
        passphrases = passphrases or Passphrases()
        self.trust = FleetTrust(directory, database, passphrases)
        self.enrolment = Enrolment(directory, config, database, passphrases, self.trust)
        self.config = config
        self._database = database
        self._repository = Repository(directory / REPOSITORY_FOLDER)

    @classmethod
    def init(
        cls,
        directory: Path,
        name: str | None = None,
        broker: str = DEFAULT_BROKER,
        passphrases: Passphrases | None = None,
    ) -> Fleet:
        """Make a fleet in a folder, by default with the folder's name. What an interrupted call left is completed.

        It has no keys; `fleet.trust.found` makes them.
        Raises AlreadyAFleet, BadSettings, StorageError, OSError.
        """
        config = FleetConfig(name or directory.resolve().name, broker)
        if (directory / SETTINGS_FILE).exists():
            raise AlreadyAFleet(f"{directory} holds a fleet already")
        is_ours = not directory.exists()
        disk = Disk()
        disk.make_directories(directory)
        if is_ours:
            directory.chmod(0o700)  # the broker's address may hold a password
        disk.make_directories(directory / REPOSITORY_FOLDER)
        database = Database(directory / DATABASE_FILE)
        try:
            write_config(directory, config)
        except OSError:
            database.close()
            raise
        return cls(directory, config, database, passphrases)

    @classmethod
    def open(cls, directory: Path, passphrases: Passphrases | None = None) -> Fleet:
        """Open the fleet in a folder; without `passphrases` only keys that are not encrypted can be used.

        Raises NoFleetHere, BadSettings, StorageError.
        """
        config = read_config(directory)
        return cls(directory, config, Database(directory / DATABASE_FILE), passphrases)

    def use_broker(self, url: str, enrolment_url: str) -> None:
        """Let the fleet use the broker that `enrolment.broker` has configured. Raises BadSettings, OSError."""
        changed = replace(
            self.config,
            broker=url,
            ca_file=f"{FOLDER}/{CERTIFICATE_FILE}",
            cert_file=FLEET_CERTIFICATE,
            key_file=FLEET_KEY,
            device_url=None,
            enrolment_url=enrolment_url,
        )
        write_config(self.directory, changed)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def audit(self, newest: int | None = None) -> tuple[AuditEntry, ...]:
        """Return who did what, oldest first; of the newest so many when that is given. Raises StorageError."""
        return list_audit(self._database, newest)

    def first_broken_entry(self) -> int | None:
        """Return the number of the first entry of the log that was tampered with. Raises StorageError."""
        return first_broken(self._database)

    # bundles ----

    def publish(self, path: Path, progress: Progress | None = None) -> Publication:
        """Verify a bundle (a directory or packed), take it in, and sign it when the fleet has keys.

        `progress` is called with bytes done; they add up to twice the size of the bundle, less its manifest once.

        Raises:
            BundleConflict: the name and version are taken by other content.
            MalformedBundle, DigestMismatch, MalformedDocument, UnsupportedSchema: the bundle is not sound.
            KeyUnavailable, WrongPassphrase, BadMetadata: it cannot be signed, and is not published.
            InUse: another publication has run for a minute. StorageError, OSError: it cannot be stored.
        """
        with self.trust.locked(), opened(path) as directory:
            self._repository.prepare()
            sign = self.trust.sign_bundle if self.trust.is_founded else None
            return publish(self._database, self._repository, directory, progress, sign)

    def bundles(self) -> tuple[PublishedBundle, ...]:
        """Return what is published. Raises StorageError."""
        return list_bundles(self._database)

    def damaged_objects(self) -> tuple[str, ...]:
        """Return the digests of files of published bundles that are missing or hold other bytes. Reads all of them."""
        objects = list_objects(self._database)
        return tuple(sha256 for sha256, size in objects if not self._repository.is_intact(sha256, size))

    # devices and deployments ----

    def device_names(self) -> tuple[str, ...]:
        """Return the names of all devices. Raises StorageError."""
        return device_names(self._database)

    def devices(self) -> tuple[Device, ...]:
        """Return all devices by name. Raises StorageError."""
        return list_devices(self._database)

    def egress(self) -> Traffic:
        """Return all bulk data that was sent, to each device and to many at once. Raises StorageError."""
        shared = shared_traffic(self._database)
        devices = self.devices()
        return Traffic(
            shared.size_bytes + sum(device.sent_bytes for device in devices),
            shared.blocks + sum(device.sent_blocks for device in devices),
        )

    def deploy(
        self,
        bundle: BundleId,
        devices: Sequence[str],
        variant: str | None = None,
        create: bool = False,
        downgrade_reason: str | None = None,
        probation: ProbationTerms | None = None,
    ) -> tuple[Deployment, ...]:
        """Tell devices to run a bundle.

        Raises UnknownBundle, UnknownDevice, UnknownVariant, MalformedDocument, StorageError.
        `variant` None leaves the choice to each device; `create` allows devices that were not seen yet;
        `downgrade_reason` lets devices go below the highest version that they have confirmed, and is kept in the log;
        `probation` is what the bundle must keep to after its activation, None: the device's own terms.
        """
        published = require_bundle(self._database, bundle)
        return deploy(self._database, published, devices, variant, create, downgrade_reason, probation)

    def refresh(self, deployments: Sequence[Deployment]) -> tuple[Deployment, ...]:
        """Return the same deployments as they are now. Raises StorageError."""
        return find_deployments(self._database, [(each.device, each.generation) for each in deployments])

    def wait_for_deployments(
        self,
        deployments: Sequence[Deployment],
        timeout_s: float | None = None,
        on_poll: Callable[[tuple[Deployment, ...]], None] | None = None,
    ) -> tuple[Deployment, ...]:
        """Wait until all have ended or the time is over; returns them as they are then. Raises StorageError."""
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        while True:
            current = self.refresh(deployments)
            if on_poll:
                on_poll(current)
            if all(each.ended for each in current) or (deadline and time.monotonic() >= deadline):
                return current
            time.sleep(_POLL_S)

    def status(self, window_s: float = FLEET_LIMITS.telemetry_window_s) -> tuple[DeviceStatus, ...]:
        """Return every device with its newest deployment and the telemetry of the last `window_s` seconds.

        Raises StorageError.
        """
        deployments = {each.device: each for each in newest_deployments(self._database)}
        telemetry = telemetry_summaries(self._database, time.time() - window_s)
        return tuple(
            DeviceStatus(device, deployments.get(device.name), telemetry.get(device.name)) for device in self.devices()
        )

    # commands ----

    def command(
        self, device: str, name: str, arguments: Mapping[str, str] | None = None, expires_in_s: float | None = 3600.0
    ) -> Command:
        """Queue a command for a device. Raises UnknownDevice, MalformedDocument, StorageError."""
        return queue_command(self._database, device, name, arguments or {}, expires_in_s)

    def queued(self, command_id: str) -> QueuedCommand:
        """Return a command and its answer, if it has one. Raises UnknownCommand, StorageError."""
        return find_command(self._database, command_id)

    def wait_for_answer(self, command_id: str, timeout_s: float | None = None) -> QueuedCommand:
        """Wait until a command is answered, has expired or the time is over. Raises UnknownCommand, StorageError."""
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        while True:
            queued = self.queued(command_id)
            if queued.answer or queued.is_expired(time.time()) or (deadline and time.monotonic() >= deadline):
                return queued
            time.sleep(_POLL_S)
