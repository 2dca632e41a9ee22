"""What a disk may hold after a loss of power: a recorded run, replayed to any operation, with what POSIX lets be lost.

POSIX promises a file's bytes after fsync of the file, and a name after fsync of its directory. Until then each may be
there or not. A rename is one operation: the old name does not go before the new one is there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from autoglm_edge_protocol.durable import Disk

Operation = Callable[["Volume"], None]


@dataclass(eq=False)
class File:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)
    """Writes (offset, bytes) and truncations (size) since the last sync."""


@dataclass(eq=False)
class Change:
    """Of one name in one directory, not synced yet; `node` None removes it."""

    name: str
    node: File | Directory | None
    after: Change | None = None
    """The other half of a rename between directories, without which this one is not lost alone."""
    durable: bool = False


@dataclass(eq=False)
class Directory:
    entries: dict[str, File | Directory] = field(default_factory=dict)
    durable: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        _apply(self.entries, change)
        self.pending.append(change)

    def sync(self) -> None:
        self.durable = dict(self.entries)
        for change in self.pending:
            change.durable = True
        self.pending = []


def _apply(entries: dict[str, File | Directory], change: Change) -> None:
    if change.node is None:
        entries.pop(change.name, None)
    else:
        entries[change.name] = change.node


class Volume:
    """A file system with two faces: what programs see, and what is certain to be there after a loss of power."""

    def __init__(self, root: Path) -> None:
        self._links: dict[int, File] = {}
        self.root = self._read(root)
        self._links = {}
        self.opened: dict[int, File] = {}

    def _read(self, folder: Path) -> Directory:
        directory = Directory()
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                directory.entries[path.name] = self._read(path)
                continue
            data = path.read_bytes()
            node = self._links.setdefault(path.stat().st_ino, File(bytearray(data), data))
            directory.entries[path.name] = node
        directory.durable = dict(directory.entries)
        return directory

    def directory(self, parts: tuple[str, ...]) -> Directory:
        directory = self.root
        for part in parts:
            below = directory.entries[part]
            assert isinstance(below, Directory)
            directory = below
        return directory


Place = tuple[str, ...]


class Recorder(Disk):
    """Does every operation and notes it, relative to `root`, so that it can be done to a `Volume` later."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._handles: dict[int, int] = {}
        self._opened = 0
        self.trace: list[Operation] = []

    def _place(self, path: Path) -> tuple[Place, str]:
        parts = path.relative_to(self._root).parts
        return parts[:-1], parts[-1]

    def make_directory(self, path: Path) -> None:
        new = not path.is_dir()
        super().make_directory(path)
        folder, name = self._place(path)
        if new:
            self.trace.append(lambda volume: volume.directory(folder).change(Change(name, Directory())))

    def open_write(self, path: Path) -> IO[bytes]:
        file = super().open_write(path)
        folder, name = self._place(path)
        self._opened += 1
        number = self._handles[file.fileno()] = self._opened

        def operation(volume: Volume) -> None:
            directory = volume.directory(folder)
            if name not in directory.entries:
                directory.change(Change(name, File()))
            node = directory.entries[name]
            assert isinstance(node, File)
            volume.opened[number] = node

        self.trace.append(operation)
        return file

    def write_at(self, file: IO[bytes], offset: int, data: bytes | memoryview) -> None:
        super().write_at(file, offset, data)
        number, kept = self._handles[file.fileno()], bytes(data)

        def operation(volume: Volume) -> None:
            node = volume.opened[number]
            _write(node.data, offset, kept)
            node.pending.append((offset, kept))

        self.trace.append(operation)

    def truncate(self, file: IO[bytes], size_bytes: int) -> None:
        super().truncate(file, size_bytes)
        number = self._handles[file.fileno()]

        def operation(volume: Volume) -> None:
            node = volume.opened[number]
            _truncate(node.data, size_bytes)
            node.pending.append(size_bytes)

        self.trace.append(operation)

    def sync(self, file: IO[bytes]) -> None:
        super().sync(file)
        number = self._handles[file.fileno()]

        def operation(volume: Volume) -> None:
            node = volume.opened[number]
            node.durable, node.pending = bytes(node.data), []

        self.trace.append(operation)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        if path != self._root and self._root not in path.parents:
            return
        parts = path.relative_to(self._root).parts
        self.trace.append(lambda volume: volume.directory(parts).sync())

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        (old, old_name), (new, new_name) = self._place(source), self._place(target)

        def operation(volume: Volume) -> None:
            added = Change(new_name, volume.directory(old).entries[old_name])
            volume.directory(new).change(added)
            volume.directory(old).change(Change(old_name, None, added))

        self.trace.append(operation)

    def link(self, source: Path, target: Path) -> None:
        new = not target.exists()
        super().link(source, target)
        (old, old_name), (folder, name) = self._place(source), self._place(target)

        def operation(volume: Volume) -> None:
            volume.directory(folder).change(Change(name, volume.directory(old).entries[old_name]))

        if new:
            self.trace.append(operation)

    def unlink(self, path: Path) -> None:
        self._remove(path, super().unlink)

    def remove_directory(self, path: Path) -> None:
        self._remove(path, super().remove_directory)

    def _remove(self, path: Path, remove: Callable[[Path], None]) -> None:
        there = path.exists()
        remove(path)
        folder, name = self._place(path)
        if there:
            self.trace.append(lambda volume: volume.directory(folder).change(Change(name, None)))


@dataclass(frozen=True)
class Loss:
    """What of the things that were not synced is lost: of the names, and of the bytes."""

    name: str
    names: float
    data: float
    """Probabilities; 0 and 1 are certain."""


LOSSES = (
    Loss("nothing lost", 0, 0),
    Loss("all lost that was not synced", 1, 1),
    Loss("names kept, bytes lost", 0, 1),
    Loss("names lost, bytes kept", 1, 0),
    Loss("some names and some bytes lost", 0.5, 0.5),
)


def after_power_loss(beginning: Path, trace: list[Operation], loss: Loss, seed: int, target: Path) -> None:
    """Write to `target` what a disk that held `beginning` may hold after these operations and the loss."""
    volume = Volume(beginning)
    for operation in trace:
        operation(volume)
    _write_out(volume.root, loss, random.Random(seed), target, {}, {})


def _write_out(
    directory: Directory,
    loss: Loss,
    dice: random.Random,
    target: Path,
    kept: dict[Change, bool],
    written: dict[File, Path],
) -> None:
    target.mkdir()
    for name, node in _survivors(directory, loss, dice, kept).items():
        path = target / name
        if isinstance(node, Directory):
            _write_out(node, loss, dice, path, kept, written)
        elif node in written:
            os.link(written[node], path)
        else:
            path.write_bytes(_bytes(node, loss, dice))
            written[node] = path


def _survivors(
    directory: Directory, loss: Loss, dice: random.Random, kept: dict[Change, bool]
) -> dict[str, File | Directory]:
    entries = dict(directory.durable)
    for change in directory.pending:
        if _survives(change, loss, dice, kept):
            _apply(entries, change)
    return entries


def _survives(change: Change, loss: Loss, dice: random.Random, kept: dict[Change, bool]) -> bool:
    if change.durable:
        return True
    if change not in kept:
        kept[change] = dice.random() >= loss.names and (
            change.after is None or _survives(change.after, loss, dice, kept)
        )
    return kept[change]


def _bytes(node: File, loss: Loss, dice: random.Random) -> bytes:
    data = bytearray(node.durable)
    for each in node.pending:
        if dice.random() < loss.data:
            continue
        if isinstance(each, int):
            _truncate(data, each)
        else:
            _write(data, *each)
    return bytes(data)


def _write(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _truncate(data: bytearray, size_bytes: int) -> None:
    del data[size_bytes:]
    data.extend(bytes(size_bytes - len(data)))
