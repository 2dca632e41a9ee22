"""Where a bundle goes: written beside its place under a hidden name, and moved there when it is whole.

The moves are several, and the power may fail between two. So the hidden directory is first given the name that says
that all in it is whole (`.STEM.ready`); whoever finds that name finishes the moves, and `.STEM.new` is thrown away.
"""

from __future__ import annotations

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
        Raises OutputUnavailable: something is there already, or the file system does not let us write.
        """
        disk = Disk()
        try:
            disk.remove_tree(self._staging)
            self._finish(disk)
            if not self.force:
                self._refuse_existing()
            disk.make_directories(self.root)
            disk.make_directory(self._staging)
        except OSError as error:
            raise OutputUnavailable(
                f"cannot write to {self.root} ({error.strerror}): choose another --output"
            ) from None
        try:
            yield self._staging
        finally:
            with suppress(OSError):
                disk.remove_tree(self._staging)

    def _refuse_existing(self) -> None:
        for path in (self.directory, self.packed):
            if path.exists():
                raise OutputUnavailable(f"{path} exists already: choose another --version, or replace it with --force")

    def publish(self) -> None:
        """Move the finished `bundle` and packed file from the staging directory to their places. Raises OSError.

        With `force`, what was there is moved aside first and removed last, so that it is never half there. What
        raises on the way puts it back.
        """
        disk = Disk()
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
