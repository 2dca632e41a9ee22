"""What earlier conversions found out, kept by content: the key says everything that the answer depends on.

Quality is kept, which is the same each time, and what was measured of time and memory, whose key names the machine: so
the same conversion gives the same bundle again, byte for byte. An entry is one
file that begins with the digest of the rest; one that is damaged or cannot be read counts as absent. The folder is
bounded: the entries that were used longest ago go first.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk

MOST_BYTES = 64 * 1024 * 1024
_SUFFIX = ".entry"
_DIGEST_LENGTH = 64


class Cache(Protocol):
    """Bytes by key. Neither method raises: a cache that does not work is one that holds nothing."""

    def get(self, key: str) -> bytes | None:
        """Return what was put."""

    def put(self, key: str, data: bytes) -> None:
        """Keep for a later conversion."""


class NoCache:
    """Keeps nothing."""

    def get(self, key: str) -> bytes | None:
        """Return None."""
        return None

    def put(self, key: str, data: bytes) -> None:
        """Ignore."""


class FolderCache:
    """Entries in one folder, which is made when first needed. Several processes may share it."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._disk = Disk()

    def get(self, key: str) -> bytes | None:
        """Return what was put, and count it as used now."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, data = content[:_DIGEST_LENGTH], content[_DIGEST_LENGTH:]
        with suppress(OSError):
            if digest != sha256_of(data).encode():
                self._disk.unlink(path)
                return None
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep for a later conversion."""
        with suppress(OSError):
            self._disk.make_directories(self._folder)
            self._disk.commit(self._path(key), sha256_of(data).encode() + data)

    def trim(self) -> None:
        """Remove the entries used longest ago until the rest keeps the bound."""
        with suppress(OSError):
            found = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob(f"*{_SUFFIX}")]
            total = sum(size for _, size, _ in found)
            for _, size, path in sorted(found):
                if total <= self._most_bytes:
                    return
                self._disk.unlink(path)
                total -= size

    def _path(self, key: str) -> Path:
        return self._folder / f"{sha256_of(key.encode())}{_SUFFIX}"


def user_cache_folder() -> Path:
    """Return where this user's caches belong: XDG on Linux, the system's own place elsewhere."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "autoglm-edge"
