"""A device's gate with its real verifier process, and a repository in memory that the test may turn against it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fakes.signing import FakeRepository

from autoglm_edge_agent.config import DeviceSection
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.trust.gate import Gate
from autoglm_edge_agent.trust.vault import Vault
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import BundleReference, DesiredState
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.signed import MetadataFile

FLEET, DEVICE = "home", "porch"


class CatalogueSource:
    """Serves what a catalogue names, out of a repository's files by their digests."""

    def __init__(self, device: GatedDevice, catalogue: Mapping[str, MetadataFile]) -> None:
        self._device = device
        self._catalogue = catalogue

    @property
    def offered(self) -> tuple[str, ...]:
        return tuple(self._catalogue)

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        self._device.asked.append(name)
        await self._device.answering.wait()
        file = self._catalogue.get(name)
        data = self._device.served(file.sha256) if file else None
        return None if data is None else data[: max_bytes + 1]


class GatedDevice:
    """A device that was given the first root of `repository`. Its clock is `clock_s`, the real one at first."""

    def __init__(self, directory: Path, repository: FakeRepository | None = None, disk: Disk | None = None) -> None:
        self.directory = directory
        self.repository = repository or FakeRepository()
        self.disk = disk or Disk()
        self.clock_s = time.time()
        self.asked: list[str] = []
        self.answering = asyncio.Event()
        """While it is not set, whoever asks for metadata waits."""
        self.answering.set()
        self.more: dict[str, bytes] = {}
        """Further files that can be fetched, by digest."""
        self._files: dict[str, bytes] = {}
        self.gate = self.restart()

    def restart(self) -> Gate:
        vault = Vault(self.directory, self.disk)
        device = DeviceSection(fleet=FLEET, name=DEVICE)
        self.gate = Gate(
            device,
            vault,
            self.repository.first_root,
            lambda catalogue: [CatalogueSource(self, catalogue)],
            lambda: None,
            lambda: self.clock_s,
        )
        self.vault = vault
        return self.gate

    def served(self, sha256: str) -> bytes | None:
        self._files |= {sha256_of(data): data for data in self.repository.files.values()}
        return (self._files | self.more).get(sha256)

    def signed(self, generation: int, bundle: BundleReference | None = None, **more: Any) -> bytes:
        """Return an honest message for a generation, whose bundle is in the repository."""
        if bundle is not None:
            self.repository.add(bundle)
        self.served("")  # what is there now stays to be had
        return self.message(desired(generation, bundle), **more)

    def message(self, document: DesiredState | Command, fleet: str = FLEET, **more: Any) -> bytes:
        return self.repository.message(document, fleet, **more)

    async def code(self, message: bytes) -> str:
        """Return the code of the refusal of a desired state, `accepted` when there is none."""
        try:
            await self.gate.desired(message)
        except Refusal as refusal:
            return refusal.reason.code
        return "accepted"

    async def command_code(self, message: bytes) -> str:
        """Return the code of the refusal of a command, `accepted` when there is none."""
        try:
            await self.gate.command(message)
        except Refusal as refusal:
            return refusal.reason.code
        return "accepted"


def reference(version: str = "1.0.0", name: str = "linear", content: str = "") -> BundleReference:
    digest = sha256_of(f"{name} {version} {content}".encode())
    return BundleReference(name=name, version=version, manifest_sha256=digest, manifest_size_bytes=4000)


def desired(generation: int, bundle: BundleReference | None = None, device: str = DEVICE) -> DesiredState:
    return DesiredState(fleet=FLEET, device=device, generation=generation, bundle=bundle)


def command(command_id: str = "c1", device: str = DEVICE, **more: Any) -> Command:
    return Command(command_id=command_id, device=device, name="ping", **more)
