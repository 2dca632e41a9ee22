"""Committing to disk: every operation may be the last one, and what is left is old or new, whole."""

from __future__ import annotations

import errno
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from autoglm_edge_protocol.durable import Disk

OLD, NEW = b"old" * 5000, b"new!" * 9000


class PowerLost(Exception):
    """Not an OSError, which code may handle: after this nothing runs any more."""


class FailingDisk(Disk):
    """Fails at the n-th primitive operation; a write that fails has written half of its bytes."""

    def __init__(self, at: int, error: type[Exception] = PowerLost) -> None:
        self.operations: list[str] = []
        self._at = at
        self._error = error

    def _step(self, name: str) -> None:
        self.operations.append(name)
        if len(self.operations) == self._at:
            raise self._error(errno.EIO, name)

    def make_directory(self, path: Path) -> None:
        self._step("make_directory")
        super().make_directory(path)

    def open_write(self, path: Path) -> IO[bytes]:
        self._step("open_write")
        return super().open_write(path)

    def write_at(self, file: IO[bytes], offset: int, data: bytes | memoryview) -> None:
        try:
            self._step("write_at")
        except Exception:
            super().write_at(file, offset, data[: len(data) // 2])
            raise
        super().write_at(file, offset, data)

    def truncate(self, file: IO[bytes], size_bytes: int) -> None:
        self._step("truncate")
        super().truncate(file, size_bytes)

    def sync(self, file: IO[bytes]) -> None:
        self._step("sync")
        super().sync(file)

    def sync_directory(self, path: Path) -> None:
        self._step("sync_directory")
        super().sync_directory(path)

    def replace(self, source: Path, target: Path) -> None:
        self._step("replace")
        super().replace(source, target)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)

    def remove_directory(self, path: Path) -> None:
        self._step("remove_directory")
        super().remove_directory(path)


def _until_it_passes(attempt: Callable[[FailingDisk], None], error: type[Exception]) -> list[list[str]]:
    """Run `attempt` with a disk that fails at its first, second, ... operation until none fails."""
    tried = []
    for at in itertools.count(1):
        disk = FailingDisk(at, error)
        try:
            attempt(disk)
        except error:
            tried.append(disk.operations)
        else:
            return tried
    raise AssertionError


@pytest.mark.parametrize("error", [PowerLost, OSError])
@pytest.mark.parametrize("old", [OLD, None])
def test_a_commit_leaves_old_or_new(tmp_path: Path, old: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "state.json"

    def attempt(disk: FailingDisk) -> None:
        path.unlink(missing_ok=True)
        if old is not None:
            path.write_bytes(old)
        try:
            disk.commit(path, NEW)
        finally:
            found = path.read_bytes() if path.exists() else None
            assert found == (NEW if "replace" in disk.operations[:-1] else old)
            # The next start commits again, whatever the last attempt left behind.
            Disk().commit(path, OLD)
            assert path.read_bytes() == OLD
            assert [p.name for p in tmp_path.iterdir()] == ["state.json"]

    tried = _until_it_passes(attempt, error)
    assert [operations[-1] for operations in tried] == [
        "open_write", "truncate", "write_at", "sync", "replace", "sync_directory",
    ]  # fmt: skip


def test_a_promoted_file_has_one_name_at_any_time(tmp_path: Path) -> None:
    source, target = tmp_path / "a.part", tmp_path / "a"

    def attempt(disk: FailingDisk) -> None:
        target.write_bytes(OLD)
        source.write_bytes(NEW)
        try:
            disk.promote(source, target)
        finally:
            assert target.read_bytes() in (OLD, NEW)
            assert source.exists() == (target.read_bytes() == OLD)

    assert [operations[-1] for operations in _until_it_passes(attempt, PowerLost)] == ["replace", "sync_directory"]


def test_directories_are_made_from_the_top_and_can_be_continued(tmp_path: Path) -> None:
    def attempt(disk: FailingDisk) -> None:
        disk.make_directories(tmp_path / "a/b/c")

    tried = _until_it_passes(attempt, PowerLost)
    assert (tmp_path / "a/b/c").is_dir()
    assert {operation for operations in tried for operation in operations} == {"make_directory", "sync_directory"}


def test_a_tree_is_removed_from_the_leaves_and_can_be_continued(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(OLD)
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tree / name).write_bytes(OLD)
    (tree / "link").symlink_to(tmp_path, target_is_directory=True)
    assert len(_until_it_passes(lambda disk: disk.remove_tree(tree), PowerLost)) > 1
    assert not tree.exists()
    assert outside.read_bytes() == OLD
    Disk().remove_tree(tree)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError):
        Disk().make_directory(tmp_path / "a")


def test_a_file_system_without_hard_links_gets_a_whole_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(NEW)
    monkeypatch.setattr(Path, "hardlink_to", refuse)

    def attempt(disk: FailingDisk) -> None:
        try:
            disk.link(source, target)
        finally:
            assert not target.exists() or target.read_bytes() == NEW

    assert len(_until_it_passes(attempt, PowerLost)) == 4
    assert target.read_bytes() == NEW


def test_links_keep_what_is_there_and_report_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(NEW)
    (tmp_path / "b").write_bytes(OLD)
    Disk().link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == OLD
    Disk().link(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").samefile(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        Disk().link(tmp_path / "missing", tmp_path / "d")


def test_writing_in_the_middle_truncates_nothing(tmp_path: Path) -> None:
    disk, path = Disk(), tmp_path / "sparse"
    path.write_bytes(b"0123456789")
    with disk.open_write(path) as file:
        disk.write_at(file, 3, memoryview(b"abc"))
        disk.sync(file)
    assert path.read_bytes() == b"012abc6789"
    assert disk.free_bytes(tmp_path) > 0


COMMITS = """
import sys
from pathlib import Path
from autoglm_edge_protocol.durable import Disk
disk, path, number = Disk(), Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    number += 1
    disk.commit(path, b"%08d" % number * (20_000 + number % 1000))
"""


def test_sigkill_in_a_loop_of_commits_leaves_a_whole_one(tmp_path: Path) -> None:
    path, last = tmp_path / "state", 0
    for round_number in range(8):
        process = subprocess.Popen([sys.executable, "-c", COMMITS, str(path)], stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02 + round_number * 0.013)
            process.send_signal(signal.SIGKILL)
        if not path.exists():
            continue
        data = path.read_bytes()
        last = int(data[:8])
        assert data == b"%08d" % last * (20_000 + last % 1000)
    assert last > 0
