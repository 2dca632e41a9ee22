"""Committing to disk: the only place where files are made, renamed, linked and removed durably.

`Disk` has one method per operation of the file system, and the few compositions that are safe against power loss at
any point (write, flush, fsync, rename, fsync of the directory). Faults are injected by a subclass that fails at the
n-th operation; nothing else in the code may rename.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import IO

_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}


class Disk:
    """The file system, one operation per method. Every method raises OSError."""

    # primitive operations ----

    def make_directory(self, path: Path) -> None:
        """Make one directory; that it exists is no error."""
        path.mkdir(mode=0o755, exist_ok=True)

    def open_write(self, path: Path) -> IO[bytes]:
        """Open a file for writing anywhere in it, made when missing, never truncated."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        return os.fdopen(descriptor, "r+b", buffering=0)

    def open_private(self, path: Path) -> IO[bytes]:
        """As `open_write`, a file that its owner alone may read, also where it was there with another mode."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        path.chmod(0o600)
        return file

    def write_at(self, file: IO[bytes], offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`."""
        file.seek(offset)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def truncate(self, file: IO[bytes], size_bytes: int) -> None:
        """Cut the file to its size."""
        file.truncate(size_bytes)

    def sync(self, file: IO[bytes]) -> None:
        """Force the file's bytes to the disk."""
        file.flush()
        os.fsync(file.fileno())

    def sync_directory(self, path: Path) -> None:
        """Force the directory's entries to the disk. Windows has no such call and needs none."""
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give the file another name, atomically replacing what had it."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Make a second name for a file, durable copy where there can be none; a file that has the name stays."""
        try:
            target.hardlink_to(source)
        except FileExistsError:
            return
        except NotImplementedError:
            self._copy(source, target)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._copy(source, target)

    def _copy(self, source: Path, target: Path) -> None:
        # Not straight to its name: what a crash leaves there would pass for the whole file ever after.
        temporary = target.with_name(f".{target.name}.new")
        with source.open("rb") as original, self.open_write(temporary) as copy:
            self.truncate(copy, 0)
            shutil.copyfileobj(original, copy, 1024 * 1024)
            self.sync(copy)
        self.replace(temporary, target)

    def unlink(self, path: Path) -> None:
        """Remove a file; that it is missing is no error."""
        path.unlink(missing_ok=True)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory; that it is missing is no error."""
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()

    def free_bytes(self, path: Path) -> int:
        """Return what may still be written to the file system of `path`."""
        return shutil.disk_usage(path).free

    # compositions that are safe at any point ----

    def commit(self, path: Path, data: bytes) -> None:
        """Make `path` hold `data`: after a loss of power it holds the old bytes or the new ones, whole.

        A failed commit may leave `.NAME.new` behind; the next one of the same path overwrites it.
        """
        temporary = path.with_name(f".{path.name}.new")
        with self.open_write(temporary) as file:
            self._fill(file, data)
        self.promote(temporary, path)

    def commit_private(self, path: Path, data: bytes) -> None:
        """As `commit`, and nobody but the owner can read it at any moment."""
        temporary = path.with_name(f".{path.name}.new")
        with self.open_private(temporary) as file:
            self._fill(file, data)
        self.promote(temporary, path)

    def _fill(self, file: IO[bytes], data: bytes) -> None:
        self.truncate(file, 0)
        self.write_at(file, 0, data)
        self.sync(file)

    def promote(self, source: Path, target: Path) -> None:
        """Give a file that was written and synced its final name, durably."""
        self.replace(source, target)
        self.sync_directory(target.parent)

    def make_directories(self, path: Path) -> None:
        """Make a directory and its missing parents, durably."""
        if path.is_dir():
            return
        self.make_directories(path.parent)
        self.make_directory(path)
        self.sync_directory(path.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all that is in it, leaves first. A crash leaves a smaller tree to remove."""
        if not path.is_dir() or path.is_symlink():
            self.unlink(path)
            return
        for child in sorted(path.iterdir()):
            self.remove_tree(child)
        self.remove_directory(path)
