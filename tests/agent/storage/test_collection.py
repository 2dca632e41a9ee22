"""What is removed to make room: all that no kept bundle needs, and nothing where it is unknown what one needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.model_bundles import ModelBundle, make_model_bundle

from autoglm_edge_agent.storage.store import Store, files_here
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import MANIFEST_PATH


def install(store: Store, bundle: ModelBundle) -> str:
    manifest = read_manifest(bundle.directory)
    for path in (bundle.directory / MANIFEST_PATH, *(bundle.directory / entry.path for entry in manifest.files)):
        sha256 = sha256_of_file(path)
        shutil.copy(path, store.partial_path(sha256))
        store.admit(sha256)
    store.install(bundle.reference, files_here(manifest, manifest.variants[0]))
    return bundle.reference.manifest_sha256


def objects(store: Store) -> set[str]:
    return {path.name for path in (store.directory / "objects").glob("*/*")}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", Disk())


@pytest.fixture
def digests(store: Store, tmp_path: Path) -> list[str]:
    return [install(store, make_model_bundle(tmp_path / str(n), version=f"{n}.0.0", seed=n)) for n in (1, 2)]


def test_what_only_the_bundle_that_goes_needs_is_removed(store: Store, digests: list[str]) -> None:
    kept, gone = digests
    before = objects(store)
    store.collect({kept})
    assert kept in objects(store) < before
    assert gone not in objects(store)
    assert not (store.directory / "bundles" / gone).exists()


def damage(path: Path) -> None:
    path.unlink()  # the tree has a name of its own for it
    path.write_bytes(b"{}")


@pytest.mark.parametrize("lose", [Path.unlink, damage])
def test_a_lost_manifest_does_not_keep_everything(
    store: Store, digests: list[str], lose: Callable[[Path], None]
) -> None:
    kept, gone = digests
    lose(store.object_path(kept))
    before = objects(store)
    store.collect({kept})
    assert gone not in objects(store)
    needed = {entry.sha256 for entry in read_manifest(store.directory / "bundles" / kept).files}
    assert needed & before <= objects(store)


@pytest.mark.parametrize("tree", ["none", "without", "another"])
def test_everything_stays_where_nobody_knows_what_is_needed(store: Store, digests: list[str], tree: str) -> None:
    kept, _ = digests
    store.object_path(kept).unlink()
    root = store.directory / "bundles" / kept
    if tree == "none":
        shutil.rmtree(root)
    else:
        (root / MANIFEST_PATH).unlink()
    if tree == "another":
        shutil.copy(store.object_path(digests[1]), root / MANIFEST_PATH)
    before = objects(store)
    store.collect({kept})
    assert objects(store) == before
