"""Where the files of bundles may come from beside the fleet: a folder, or a web server. All are under their SHA-256."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.trust.https import HttpsRepository
from autoglm_edge_agent.updates.fetch import Fetcher, Progress
from autoglm_edge_agent.updates.receiving import Requests, TransferPolicy
from autoglm_edge_agent.updates.seeds import NOWHERE, Places
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.errors import DigestMismatch

log = logging.getLogger(__name__)

_PIECE_BYTES = 256 * 1024
_SLOWEST_BYTES_PER_S = 1024
_LEAST_S = 120.0


class Depot(Protocol):
    """Files by their SHA-256."""

    is_remote: bool
    """Whether what it gives has come over a network."""

    def stream(self, sha256: str, size_bytes: int) -> Generator[bytes, None, None] | None:
        """Return the pieces of a file; None: it is not there. Raises OSError, also while they are read."""


class FolderDepot:
    """A folder that holds what the fleet's folder `repository` does."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stream(self, sha256: str, size_bytes: int) -> Generator[bytes, None, None] | None:
        """Return the pieces of a file."""
        path = self._folder / object_name(sha256)
        return self._pieces(path) if path.is_file() else None

    def _pieces(self, path: Path) -> Generator[bytes, None, None]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece


class HttpsDepot:
    """A web server that serves the fleet's folder `repository`."""

    is_remote = True

    def __init__(self, server: HttpsRepository) -> None:
        self._server = server

    def stream(self, sha256: str, size_bytes: int) -> Generator[bytes, None, None] | None:
        """Return the pieces of a file."""
        return self._server.stream(object_name(sha256), _LEAST_S + size_bytes / _SLOWEST_BYTES_PER_S)


def object_name(sha256: str) -> str:
    """Return where a repository has the file with this digest."""
    return f"objects/{sha256[:2]}/{sha256}"


class DepotFetcher(Fetcher):
    """Takes from the depots what they have, and the rest from the fleet.

    Args:
        depots: returns those that may be asked now, the nearest first.
    """

    def __init__(
        self,
        store: Store,
        requests: Requests,
        on_progress: Progress,
        depots: Callable[[], list[Depot]],
        policy: TransferPolicy | None = None,
    ) -> None:
        super().__init__(store, requests, on_progress, policy)
        self._objects = store
        self._tell = on_progress
        self._depots = depots

    async def fetch(self, file: ChunkedFile, places: Places = NOWHERE) -> None:
        """Bring a file into the store, as `Fetcher.fetch` does and with its errors."""
        for depot in self._depots():
            if self._objects.has(file.sha256):
                return
            try:
                await self._try(depot, file)
            except (OSError, DigestMismatch) as error:
                log.warning("%s could not be taken from beside the fleet: %s", file.sha256[:12], error)
        await super().fetch(file, places)

    async def _try(self, depot: Depot, file: ChunkedFile) -> None:
        stop = threading.Event()
        work = asyncio.ensure_future(in_thread(self._take, depot, file, stop))
        try:
            await asyncio.shield(work)
        finally:  # also when a newer order comes: a thread ends only by itself
            stop.set()
            await asyncio.wait({work})
        if self._objects.has(file.sha256):
            if depot.is_remote:
                self._tell(file.sha256, 0)
            self._tell(file.sha256, file.size_bytes)

    def _take(self, depot: Depot, file: ChunkedFile, stop: threading.Event) -> None:
        pieces = depot.stream(file.sha256, file.size_bytes)
        if pieces is None:
            return
        disk, size_bytes = self._objects.disk, 0
        with closing(pieces), disk.open_write(self._objects.partial_path(file.sha256)) as partial:
            disk.truncate(partial, 0)
            for piece in pieces:
                if stop.is_set():
                    return
                if size_bytes + len(piece) > file.size_bytes:
                    raise DigestMismatch(file.sha256, f"has more than {file.size_bytes} bytes")
                disk.write_at(partial, size_bytes, piece)
                size_bytes += len(piece)
            disk.sync(partial)
        self._objects.admit(file.sha256)
