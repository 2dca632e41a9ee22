from __future__ import annotations

import platform
from pathlib import Path

import pytest
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.contents import check_space, needed_files
from autoglm_edge_agent.updates.progress import Progress
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import FileEntry

KB = 1024


class DiskWithRoom(Disk):
    def __init__(self, free_bytes: int) -> None:
        self._free_bytes = free_bytes

    def free_bytes(self, path: Path) -> int:
        return self._free_bytes


ENTRY = FileEntry(path="model.onnx", size_bytes=100 * KB, sha256=sha256_of(b"model"))


def _check(state: Path, free_bytes: int, reserve_bytes: int, partial_bytes: int = 0) -> None:
    store = Store(state, DiskWithRoom(free_bytes))
    store.partial_path(ENTRY.sha256).write_bytes(b"x" * partial_bytes)
    check_space(store, (ENTRY,), reserve_bytes)


@pytest.mark.parametrize(("free", "reserve", "partial"), [(100, 0, 0), (150, 50, 0), (36, 0, 64), (86, 50, 64)])
def test_enough_space(tmp_path: Path, free: int, reserve: int, partial: int) -> None:
    _check(tmp_path, free * KB, reserve * KB, partial * KB)


@pytest.mark.parametrize(("free", "reserve", "partial"), [(99, 0, 0), (149, 50, 0), (35, 0, 64), (0, 0, 0)])
def test_too_little_space_is_told_with_the_need(tmp_path: Path, free: int, reserve: int, partial: int) -> None:
    with pytest.raises(Hindrance, match=f"{(100 - partial) * KB} bytes are to be fetched") as caught:
        _check(tmp_path, free * KB, reserve * KB, partial * KB)
    assert caught.value.reason.code == "insufficient-space"


def test_what_is_whole_needs_no_space(tmp_path: Path) -> None:
    store = Store(tmp_path, DiskWithRoom(0))
    path = store.object_path(ENTRY.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"model")
    check_space(store, (ENTRY,), 10 * KB)


def test_progress_counts_each_byte_once() -> None:
    progress = Progress()
    progress.reached("whole", 50)
    progress.reached("begun", 30)  # a partial file from before
    for verified in (40, 70, 20, 70, 100):  # 20: a chunk was written over and is looked at again
        progress.reached("begun", verified)
    progress.reached("new", 0)
    progress.reached("new", 25)
    assert (progress.present_bytes, progress.fetched_bytes) == (80, 95)


def test_libraries_for_other_machines_are_not_fetched(tmp_path: Path) -> None:
    manifest = read_manifest(make_model_bundle(tmp_path).directory)
    base = manifest.variants[0]
    paths = {name: f"ops/{name}/my.so" for name in ("another", platform.machine())}
    needs = base.needs.model_copy(update={"custom_ops": {name: (path,) for name, path in paths.items()}})
    variant = base.model_copy(update={"needs": needs, "files": (*base.files, *paths.values())})
    libraries = tuple(FileEntry(path=path, size_bytes=9, sha256=sha256_of(path.encode())) for path in paths.values())
    manifest = manifest.model_copy(update={"variants": (variant,), "files": (*manifest.files, *libraries)})
    needed = {entry.path for entry in needed_files(manifest, (variant,))}
    assert paths[platform.machine()] in needed
    assert paths["another"] not in needed
    assert base.model in needed
