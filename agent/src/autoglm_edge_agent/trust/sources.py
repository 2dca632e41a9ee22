"""Where metadata comes from: the fleet, a folder, a web server. None of them is trusted: TUF checks what they give."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.trust.https import HttpsRepository
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.signed import MetadataFile

log = logging.getLogger(__name__)


class MetadataSource(Protocol):
    """A repository's folder `metadata/`, wherever it is."""

    @property
    def offered(self) -> tuple[str, ...] | None:
        """Names of the files that it has, as far as they are known."""

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file, no more than one byte above `max_bytes` of it; None: it has none of that name.

        Raises Hindrance when that cannot be said now, OSError.
        """


class FleetSource:
    """The fleet, by blocks: what a message's catalogue names.

    Args:
        store: where the files are assembled; nothing else is in it.
        fetching: held while a file is fetched: the fetcher does one at a time.
    """

    def __init__(
        self, catalogue: Mapping[str, MetadataFile], store: Store, fetcher: Fetcher, fetching: asyncio.Lock
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._fetcher = fetcher
        self._fetching = fetching

    @property
    def offered(self) -> tuple[str, ...] | None:
        """The names in the catalogue."""
        return tuple(self._catalogue)

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        """Fetch a file. Raises Hindrance, OSError."""
        file = self._catalogue.get(name)
        if file is None:
            return None
        if file.size_bytes > max_bytes:
            return bytes(max_bytes + 1)
        async with self._fetching:
            try:
                await self._fetcher.fetch(ChunkedFile.whole(file.sha256, file.size_bytes))
            except Refusal as refusal:
                log.warning("%s: %s", name, refusal)
                return None
            data = self._store.read_object(file.sha256)
            self._store.collect(set())  # it was only on its way through
        return data


class FolderSource:
    """A folder, such as a USB stick, that holds what the fleet's folder `repository` does."""

    offered = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        """Read a file. Raises Hindrance."""
        try:
            return await in_thread(read_at_most, self._folder / "metadata" / Path(name).name, max_bytes)
        except OSError as error:
            raise Hindrance("folder-unreadable", f"{self._folder}: {error}") from None


class HttpsSource:
    """A web server that serves the fleet's folder `repository`."""

    offered = None

    def __init__(self, server: HttpsRepository) -> None:
        self._server = server

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        """Get a file. Raises Hindrance."""
        try:
            return await in_thread(self._server.read, f"metadata/{Path(name).name}", max_bytes)
        except OSError as error:
            raise Hindrance("repository-unreachable", f"{self._server.url}: {error}") from None


def read_at_most(path: Path, max_bytes: int) -> bytes | None:
    """Return the file's bytes, at most one more than `max_bytes`; None: it is missing, or no file. Raises OSError."""
    try:
        with open_regular(path) as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        return None


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading. Raises OSError; FileNotFoundError also when it is something else."""
    try:
        # A pipe would be waited for until somebody writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name that no file can have, with a null character in it
        raise FileNotFoundError(f"{str(path)!r} is no file: {error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{path} is no file")
    return os.fdopen(descriptor, "rb")
