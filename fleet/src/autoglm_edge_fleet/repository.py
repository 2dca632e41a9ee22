"""The repository: files of published bundles under their SHA-256, `objects/ab/ab12...`.

An object appears whole or not at all: it is written beside, synced, and renamed. What a crash leaves in `incoming/` is
removed before the next publication. Which objects may be served is the database's business.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import IO

from autoglm_edge_protocol.bundle import Progress
from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import DigestMismatch

REPOSITORY_FOLDER = "repository"
_COPY_BYTES = 1024 * 1024
_OPEN_OBJECTS = 16
"""Objects that are kept open for reading."""


class Repository:
    """The objects under `directory`. Methods raise OSError."""

    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or Disk()
        self._open: dict[str, _OpenObject] = {}

    def prepare(self) -> None:
        """Make the folders and remove what an interrupted publication left. Only while no other one runs."""
        self._disk.make_directories(self._directory / "objects")
        self._disk.remove_tree(self._directory / "incoming")
        self._disk.make_directories(self._directory / "incoming")

    def path(self, sha256: str) -> Path:
        """Return where the object lies, or would lie."""
        return self._directory / "objects" / sha256[:2] / sha256

    def holds(self, sha256: str, size_bytes: int) -> bool:
        """Return whether the object is there in its full size. From here on that one is read: it may be there again."""
        try:
            found = self.path(sha256).stat()
        except FileNotFoundError:
            return False
        opened = self._open.get(sha256)
        if opened is not None and opened.inode != found.st_ino:
            self._open.pop(sha256).close()
        return found.st_size == size_bytes

    def is_intact(self, sha256: str, size_bytes: int) -> bool:
        """Return whether the object is there with all its bytes; one that cannot be read is not."""
        try:
            return self.holds(sha256, size_bytes) and sha256_of_file(self.path(sha256)) == sha256
        except OSError:
            return False

    def add(self, source: Path, sha256: str, size_bytes: int, progress: Progress | None = None) -> bool:
        """Take in a file; returns False when the object was there. Raises DigestMismatch when it is another file.

        One that is there is read as a whole: to publish again is what repairs a repository whose disk has failed.
        """
        if self.is_intact(sha256, size_bytes):
            if progress:
                progress(size_bytes)
            return False
        temporary = self._directory / "incoming" / sha256
        with source.open("rb") as reader, self._disk.open_write(temporary) as writer:
            self._disk.truncate(writer, 0)
            if self._copy(reader, writer, progress) != sha256:
                raise DigestMismatch(str(source), "the file has changed while it was published")
            self._disk.sync(writer)
        target = self.path(sha256)
        self._disk.make_directories(target.parent)
        self._disk.promote(temporary, target)
        return True

    def _copy(self, reader: IO[bytes], writer: IO[bytes], progress: Progress | None) -> str:
        digest, offset = hashlib.sha256(), 0
        while piece := reader.read(_COPY_BYTES):
            digest.update(piece)
            self._disk.write_at(writer, offset, piece)
            offset += len(piece)
            if progress:
                progress(len(piece))
        return digest.hexdigest()

    def name_target(self, sha256: str, target: str) -> None:
        """Give an object its second name as a target of TUF: `targets/NAME/VERSION/SHA256.manifest.json`."""
        folder, _, name = target.rpartition("/")
        path = self._directory / "targets" / folder / f"{sha256}.{name}"
        self._disk.make_directories(path.parent)
        self._disk.link(self.path(sha256), path)
        self._disk.sync_directory(path.parent)

    def read(self, sha256: str, offset: int, size_bytes: int) -> bytes:
        """Return bytes of an object."""
        return self._opened(sha256).read_at(offset, size_bytes)

    def _opened(self, sha256: str) -> _OpenObject:
        # Opening costs more than reading a block, and devices that fetch the same file ask for it block by block.
        found = self._open.pop(sha256, None) or _OpenObject(self.path(sha256))
        self._open[sha256] = found
        if len(self._open) > _OPEN_OBJECTS:
            self._open.pop(next(iter(self._open))).close()
        return found

    def close(self) -> None:
        """Close what was opened for reading."""
        while self._open:
            self._open.popitem()[1].close()


class _OpenObject:
    """An object that is being read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self.inode = os.fstat(self._file.fileno()).st_ino

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size_bytes)
        if len(data) < size_bytes:
            raise OSError(errno.EIO, "shorter than it was when it was published", str(self._path))
        return data

    def close(self) -> None:
        self._file.close()
