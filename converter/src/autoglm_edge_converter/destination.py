"""Where a bundle goes: written beside its place under a hidden name, and moved there when it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_converter.errors import OutputUnavailable
from autoglm_edge_protocol.durable import Disk


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

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Give an empty directory to write into; it is removed when the block ends, whatever happens.

        Raises OutputUnavailable: something is there already, or the file system does not let us write.
        """
        if not self.force:
            self._refuse_existing()
        disk = Disk()
        try:
            disk.make_directories(self.root)
            disk.remove_tree(self._staging)
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

    def publish(self, directory: Path, packed: Path) -> None:
        """Move a finished bundle from the staging directory to its place. Raises OSError.

        With `force`, what was there is moved aside first and removed last, so that it is never half there.
        """
        disk = Disk()
        aside = self._staging / "replaced"
        for path in sorted(directory.rglob("*")):
            if path.is_dir():
                disk.sync_directory(path)
        disk.sync_directory(directory)
        if self.directory.exists():
            disk.replace(self.directory, aside)
        try:
            disk.promote(directory, self.directory)
            disk.promote(packed, self.packed)
        except BaseException:
            if aside.exists() and not self.directory.exists():
                disk.replace(aside, self.directory)
            raise
