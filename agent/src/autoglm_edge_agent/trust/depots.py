"""Where the files of bundles may come from beside the fleet: a folder, or a web server. All are under their SHA-256."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from autoglm_edge_agent.trust.https import HttpsRepository
from autoglm_edge_agent.trust.sources import open_regular
from autoglm_edge_agent.updates.beside import PIECE_BYTES
from autoglm_edge_agent.updates.policy import SourceName

_SLOWEST_BYTES_PER_S = 1024
_LEAST_S = 120.0


class FolderDepot:
    """A folder that holds what the fleet's folder `repository` does."""

    kind: SourceName = "folder"
    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, sha256: str, offset: int, size_bytes: int) -> Generator[bytes, None, None]:
        """Give bytes of a file, in pieces. Raises OSError."""
        with open_regular(self._folder / object_name(sha256)) as file:
            file.seek(offset)
            while size_bytes and (piece := file.read(min(PIECE_BYTES, size_bytes))):
                size_bytes -= len(piece)
                yield piece


class HttpsDepot:
    """A web server that serves the fleet's folder `repository`."""

    kind: SourceName = "https"
    is_remote = True

    def __init__(self, server: HttpsRepository) -> None:
        self._server = server

    def read(self, sha256: str, offset: int, size_bytes: int) -> Generator[bytes, None, None]:
        """Give bytes of a file, in pieces. Raises OSError."""
        within_s = _LEAST_S + size_bytes / _SLOWEST_BYTES_PER_S
        pieces = self._server.stream(object_name(sha256), within_s, (offset, size_bytes))
        if pieces is None:
            raise FileNotFoundError(f"{self._server.url} has no such file")
        yield from pieces


def object_name(sha256: str) -> str:
    """Return where a repository has the file with this digest."""
    return f"objects/{sha256[:2]}/{sha256}"
