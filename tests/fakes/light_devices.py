"""Devices that only fetch: the agent's own link, fetcher and store, many of them in one process."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from autoglm_edge_agent.config import Config
from autoglm_edge_agent.storage.store import Store, files_here
from autoglm_edge_agent.updates.contents import index_file, needed_files, read_chunked_files, read_manifest
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.uplink import Uplink
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.durable import Disk


class LightDevice:
    """Fetches what it is told to by the test; takes neither desired states nor commands, and runs nothing."""

    def __init__(
        self, directory: Path, broker_url: str, fleet: str, name: str, session: int = 1, **transfer: Any
    ) -> None:
        self.name = name
        self.store = Store(directory, Disk())
        self.verified: dict[str, int] = {}
        """Bytes in place and known to be right, by the digest of the file."""
        self.took_s: float | None = None
        settings = {
            "device": {"fleet": fleet, "name": name},
            "broker": {"url": broker_url},
            "storage": {"directory": directory},
            "trust": {"insecure": True},
            "transfer": transfer,
        }
        config = Config.model_validate(settings)
        self._uplink = Uplink(config, session, lambda: None)
        self._fetcher = Fetcher(self.store, self._uplink, self.verified.__setitem__, config.transfer.policy())
        self._uplink.fetchers = (self._fetcher,)

    @property
    def connected(self) -> bool:
        return self._uplink.connected

    @property
    def verified_bytes(self) -> int:
        return sum(self.verified.values())

    async def __aenter__(self) -> LightDevice:
        await self._uplink.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._uplink.stop()

    async def fetch(self, reference: BundleReference) -> None:
        """Fetch and install the first variant of a bundle, as the agent's steps do. Raises Refusal, Hindrance."""
        begun = time.monotonic()
        await self._fetcher.fetch(ChunkedFile.whole(reference.manifest_sha256, reference.manifest_size_bytes))
        manifest = read_manifest(self.store, reference)
        variant = manifest.variants[0]
        await self._fetcher.fetch(index_file(manifest))
        for file in read_chunked_files(self.store, manifest, needed_files(manifest, (variant,))):
            await self._fetcher.fetch(file)
        self.store.install(reference, files_here(manifest, variant))
        self.took_s = time.monotonic() - begun
