"""Where a bundle goes: written beside its place under a hidden name, and moved there when it is whole.

The moves are several, and the power may fail between two. So the hidden directory is first given the name that says
that all in it is whole (`.STEM.ready`); whoever finds that name finishes the moves, and `.STEM.new` is thrown away.
Both are locked by the process that writes them, so that another one tells what is written from what is left over.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_converter.errors import OutputUnavailable
from autoglm_edge_protocol.durable import Disk

BUNDLE, REPLACED = "bundle", "replaced"


@dataclass(frozen=True)
class Destination:
    """The directory and the packed file of one bundle under `root`."""

    root: Path
    stem: str
    """`NAME-VERSION`."""
    force: bool = False

    @property
    def directory(self) -> Path:
        """The bundle as a directory."""
        return self.root / self.stem

    @property
    def packed(self) -> Path:
        """The bundle as one file."""
        return self.root / f"{self.stem}.bundle"

    @property
    def _staging(self) -> Path:
        return self.root / f".{self.stem}.new"

    @property
    def _ready(self) -> Path:
        return self.root / f".{self.stem}.ready"

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Give an empty directory to write into; it is removed when the block ends, whatever happens.

        What an earlier conversion could not finish, because it was killed, is finished or cleaned up first.
        Raises OutputUnavailable: something is there already, another conversion is writing it, or the file system does
        not let us write.
        """
        disk = Disk()
        try:
            if is_held(self._staging) or is_held(self._ready):
                raise OutputUnavailable(self._written_by_another())
            disk.remove_tree(self._staging)
            self._finish(disk)
            if not self.force:
                self._refuse_existing()
            disk.make_directories(self.root)
            disk.make_directory(self._staging)
            lock = hold(self._staging)
        except FileExistsError:
            raise OutputUnavailable(self._written_by_another()) from None
        except OSError as error:
            raise OutputUnavailable(
                f"cannot write to {self.root} ({error.strerror}): choose another --output"
            ) from None
        try:
            yield self._staging
        finally:
            with suppress(OSError):
                disk.remove_tree(self._staging)
            lock.close()

    def _written_by_another(self) -> str:
        return f"another conversion is writing {self.stem} to {self.root}: wait for it, or choose another --version"

    def _refuse_existing(self) -> None:
        for path in (self.directory, self.packed):
            if path.exists():
                raise OutputUnavailable(f"{path} exists already: choose another --version, or replace it with --force")

    def publish(self) -> None:
        """Move the finished `bundle` and packed file from the staging directory to their places. Raises OSError.

        With `force`, what was there is moved aside first and removed last, so that it is never half there. What
        raises on the way puts it back. Raises OutputUnavailable where something has come there meanwhile.
        """
        disk = Disk()
        if not self.force:
            self._refuse_existing()
        bundle = self._staging / BUNDLE
        for path in sorted(bundle.rglob("*")):
            if path.is_dir():
                disk.sync_directory(path)
        disk.sync_directory(bundle)
        disk.sync_directory(self._staging)
        try:
            disk.promote(self._staging, self._ready)
            self._finish(disk)
        except BaseException:
            self._undo(disk)
            raise

    def _finish(self, disk: Disk) -> None:
        """Make the moves that are still to be made; nothing where no bundle is ready."""
        bundle, packed = self._ready / BUNDLE, self._ready / self.packed.name
        if bundle.exists():
            if self.directory.exists():
                disk.remove_tree(self._ready / REPLACED)
                disk.replace(self.directory, self._ready / REPLACED)
            disk.promote(bundle, self.directory)
        if packed.exists():
            disk.promote(packed, self.packed)
        disk.remove_tree(self._ready)

    def _undo(self, disk: Disk) -> None:
        packed, aside = self._ready / self.packed.name, self._ready / REPLACED
        if packed.exists() and self.directory.exists() and not (self._ready / BUNDLE).exists():
            disk.replace(self.directory, self._ready / BUNDLE)
        if aside.exists() and not self.directory.exists():
            disk.replace(aside, self.directory)
        with suppress(OSError):
            disk.remove_tree(self._ready)


class Hold:
    """A lock on a directory, whatever it is called by now; it ends with its process."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def hold(directory: Path) -> Hold:
    """Lock a directory that was just made. Raises FileExistsError where another process holds or has replaced it.

    Where directories cannot be locked (Windows, some network file systems) nothing is.
    """
    if sys.platform == "win32":
        return Hold()
    else:
        import fcntl

        try:
            descriptor = os.open(directory, os.O_RDONLY)
        except FileNotFoundError:
            raise FileExistsError(errno.EEXIST, "another process has removed it", str(directory)) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not directory.exists() or not os.path.samestat(os.fstat(descriptor), directory.stat()):
                raise BlockingIOError
        except BlockingIOError:
            os.close(descriptor)
            raise FileExistsError(errno.EEXIST, "another process holds it", str(directory)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        return Hold(descriptor)


_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def is_held(directory: Path) -> bool:
    """Whether a living process holds a directory. Raises OSError."""
    if not directory.exists():
        return False
    try:
        hold(directory).close()
    except FileExistsError:
        return True
    return False
