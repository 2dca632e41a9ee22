"""Graphs as ONNX Runtime has rewritten them for this device, kept so that a worker need not do it again.

What it is worth depends on the model: `res.onnx` of the examples loads in a third of the time. Each file has its digest
beside it: a damaged one would answer wrong, and no golden set is replayed when a worker is merely started again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.durable import Disk

MOST_GRAPHS = 4
"""Of one bundle; the oldest goes."""


class GraphCache:
    """The graphs of one bundle, in a folder that goes with it."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def find(self, name: str) -> Path | None:
        """Return the graph with this name, whole. Raises OSError."""
        path, digest = self._paths(name)
        try:
            if sha256_of_file(path) == digest.read_text():
                return path
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        self._drop(name)
        return None

    def draft(self, name: str) -> Path:
        """Return where this process may write the graph. Raises OSError."""
        self._disk.make_directories(self._folder)
        for left in self._folder.glob("*.new.ort"):  # by a process that was killed
            self._disk.unlink(left)
        return self._folder / f"{name}.{os.getpid()}.new.ort"

    def keep(self, name: str, draft: Path) -> None:
        """Give a graph that was written its name. Raises OSError."""
        path, digest = self._paths(name)
        with self._disk.open_write(draft) as file:
            self._disk.sync(file)
        self._disk.unlink(digest)  # never the digest of another file beside the new one
        self._disk.promote(draft, path)
        self._disk.commit(digest, sha256_of_file(path).encode())
        kept = sorted(self._folder.glob("*.sha256"), key=lambda entry: entry.stat().st_mtime)
        for old in kept[:-MOST_GRAPHS]:
            self._drop(old.stem)

    def discard(self, draft: Path) -> None:
        """Remove a graph that came to nothing."""
        with contextlib.suppress(OSError):
            self._disk.unlink(draft)

    def _drop(self, name: str) -> None:
        for path in self._paths(name):
            self._disk.unlink(path)

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self._folder / f"{name}.ort", self._folder / f"{name}.sha256"
