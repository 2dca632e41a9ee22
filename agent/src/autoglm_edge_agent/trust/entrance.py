"""The entrance: wires the gate, its sources and the intake together, as the configuration wants them.

broker ---> Intake ---> Gate ---> verifier process       Offline <--- folder
                          |            |
                          v            v
                        Vault       sources: folder, web server, fleet
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from autoglm_edge_agent.config import Config
from autoglm_edge_agent.errors import ConfigurationError
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.trust.depots import FolderDepot, HttpsDepot
from autoglm_edge_agent.trust.gate import Gate, Sources
from autoglm_edge_agent.trust.https import HttpsRepository
from autoglm_edge_agent.trust.intake import Intake, Judgement
from autoglm_edge_agent.trust.offline import Offline
from autoglm_edge_agent.trust.sources import FleetSource, FolderSource, HttpsSource, MetadataSource
from autoglm_edge_agent.trust.unguarded import NO_ROOT, Closed, Insecure
from autoglm_edge_agent.trust.vault import Vault
from autoglm_edge_agent.updates.beside import Depot
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.policy import TransferPolicy
from autoglm_edge_agent.updates.requests import Requests
from autoglm_edge_protocol.deployment import DeploymentReport, DesiredState, TrustReport
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import MetadataFile

log = logging.getLogger(__name__)


class Entrance:
    """Everything between what arrives and what is acted on.

    Args:
        act: takes in a desired state that was let in; raises OSError while it cannot be kept.
        report: returns how far the update is.
        on_change: called when there is something new to report.
    """

    def __init__(
        self,
        config: Config,
        disk: Disk,
        requests: Requests,
        act: Callable[[DesiredState], Awaitable[object]],
        report: Callable[[], DeploymentReport | None],
        on_change: Callable[[], None],
    ) -> None:
        directory = config.storage.directory / "trust"
        self._report = report
        self._server = _server(config)
        self._store = Store(directory, disk)
        self._fetching = asyncio.Lock()
        # Metadata is small and is what tells a device of its orders: it comes at any hour.
        policy = TransferPolicy(block_bytes=config.transfer.block_bytes, follow=False)
        self.fetcher = Fetcher(self._store, requests, lambda _sha256, _verified_bytes: None, policy)
        """Where blocks of metadata are to be delivered."""
        self._gate = _gate(config, Vault(directory, disk), self._sources, on_change)
        self._judgement: Judgement = self._gate or (Insecure(config.device) if config.trust.insecure else Closed())
        self.intake = Intake(self._judgement, act, lambda: self._generation)
        self._offline = Offline(config.storage.directory, disk, config.device.name, self.intake, report)
        self.time = self._gate.time if self._gate else None
        """Returns the Unix time in seconds by which expiries are judged; None: the clock's will do."""

    def trust(self) -> TrustReport:
        """Return what the fleet is told."""
        return self._judgement.report()

    def note_update(self) -> None:
        """Look how far the update is: what was confirmed is never gone below again. Never raises."""
        report = self._report()
        if self._gate is None or report is None:
            return
        self._gate.note_generation(report.generation)
        if report.phase == "confirmed" and report.bundle is not None:
            self._gate.note_confirmed(report.bundle)

    def depots(self) -> list[Depot]:
        """Return where files of bundles may be taken from now."""
        folder = self._offline.folder
        depots: list[Depot] = [FolderDepot(folder)] if folder else []
        return [*depots, HttpsDepot(self._server)] if self._server else depots

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is to run as long as the agent does."""
        return [self.intake.run(), self._offline.run()]

    def _sources(self, catalogue: Mapping[str, MetadataFile]) -> list[MetadataSource]:
        folder = self._offline.folder
        sources: list[MetadataSource] = [FolderSource(folder)] if folder else []
        if self._server:
            sources.append(HttpsSource(self._server))
        if catalogue or not sources:
            sources.append(FleetSource(catalogue, self._store, self.fetcher, self._fetching))
        return sources

    @property
    def _generation(self) -> int:
        report = self._report()
        return report.generation if report else 0


def _server(config: Config) -> HttpsRepository | None:
    url = config.trust.repository_url
    return HttpsRepository(url, config.trust.ca_file) if url else None


def _gate(config: Config, vault: Vault, sources: Sources, on_change: Callable[[], None]) -> Gate | None:
    """Make the gate where there is a root. Raises ConfigurationError when that cannot be read."""
    path = config.trust.root
    if config.trust.insecure:
        log.warning("INSECURE: no signature is checked ([trust] insecure = true); who owns the broker owns this device")
        return None
    if path is None:
        log.error("%s; docs/security.md says where to get it", NO_ROOT.message)
        return None
    try:
        root = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"[trust] root = {str(path)!r} cannot be read: {error}") from None
    if len(root) > LIMITS.metadata_bytes:
        raise ConfigurationError(f"[trust] root = {str(path)!r} is larger than {LIMITS.metadata_bytes} bytes")
    return Gate(config.device, vault, root, sources, on_change)
