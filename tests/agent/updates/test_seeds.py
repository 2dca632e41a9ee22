"""What of a new bundle is taken from bundles on the disk: which chunks, from where, and what if they are bad."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.model_bundles import ModelBundle, make_model_bundle

from autoglm_edge_agent.storage.store import Store, files_here
from autoglm_edge_agent.updates.contents import needed_files, read_chunked_files
from autoglm_edge_agent.updates.partial import PartialFile
from autoglm_edge_agent.updates.seeding import look_for_seeds, plant
from autoglm_edge_agent.updates.seeds import Place, find_seeds, locate
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.chunks import Chunk, ChunkedFile
from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH

PIECES = [random.Random(number).randbytes(40 + number) for number in range(6)]


def _file(*numbers: int) -> tuple[ChunkedFile, bytes]:
    data = b"".join(PIECES[number] for number in numbers)
    chunks = tuple(Chunk(size_bytes=len(PIECES[n]), sha256=sha256_of(PIECES[n])) for n in numbers)
    return ChunkedFile(sha256=sha256_of(data), size_bytes=len(data), chunks=chunks), data


_NUMBERS = st.lists(st.integers(0, 5), max_size=8)


@given(_NUMBERS, st.lists(_NUMBERS, max_size=4), st.sets(st.integers(0, 7)))
def test_every_missing_chunk_that_is_here_is_found_once_at_its_place(
    numbers: list[int], here: list[list[int]], verified: set[int]
) -> None:
    file, data = _file(*numbers)
    objects = [_file(*each) for each in here]
    contents = {source.sha256: source_bytes for source, source_bytes in objects}
    seeds = find_seeds(file, verified, locate([file], (source for source, _ in objects)))
    assembled = bytearray(len(data))
    for seed in seeds:
        source, size = contents[seed.place.object_sha256], seed.chunk.size_bytes
        assembled[seed.offset : seed.offset + size] = source[seed.place.offset : seed.place.offset + size]
    expected = [
        number for number, piece in enumerate(numbers) if number not in verified and any(piece in each for each in here)
    ]
    assert sorted(seed.number for seed in seeds) == expected
    offset = 0
    for number, piece in enumerate(numbers):
        end = offset + len(PIECES[piece])
        assert (assembled[offset:end] == data[offset:end]) is (number in expected)
        offset = end


def test_nothing_is_kept_of_what_nobody_wants() -> None:
    (wanted, _), (here, _) = _file(1, 2), _file(0, 2, 3, 2)
    assert locate([wanted], [here]) == {wanted.chunks[1]: Place(here.sha256, len(PIECES[0]))}
    assert locate([], [here]) == {}


# with a disk ----


def _install(store: Store, bundle: ModelBundle) -> Installed:
    """Put a bundle's files into the store."""
    manifest = read_manifest(bundle.directory)
    paths = {entry.path: entry.sha256 for entry in needed_files(manifest, manifest.variants[:1])}
    for path, sha256 in {**paths, MANIFEST_PATH: bundle.reference.manifest_sha256}.items():
        _put(store, sha256, (bundle.directory / path).read_bytes())
    store.install(bundle.reference, files_here(manifest, manifest.variants[0]))
    return Installed(bundle=bundle.reference, variant="fp32")


def _put(store: Store, sha256: str, data: bytes) -> None:
    store.partial_path(sha256).write_bytes(data)
    store.admit(sha256)


class Device:
    """A store with one installed bundle, and the model of the next one."""

    def __init__(self, folder: Path) -> None:
        old = make_model_bundle(folder / "old", version="1", width=300, body=1)
        new = make_model_bundle(folder / "new", version="2", width=300, body=1, seed=2, note="moves everything")
        self.store = Store(folder / "state", Disk())
        self.old = _install(self.store, old)
        self.old_manifest = read_manifest(old.directory)
        manifest = read_manifest(new.directory)
        self.reference = new.reference
        self.model = manifest.file("variants/fp32/model.onnx")
        _put(self.store, manifest.file(CHUNK_INDEX_PATH).sha256, (new.directory / CHUNK_INDEX_PATH).read_bytes())
        _put(self.store, new.reference.manifest_sha256, (new.directory / MANIFEST_PATH).read_bytes())
        self.wanted = (new.directory / self.model.path).read_bytes()
        (self.file,) = read_chunked_files(self.store, manifest, (self.model,))

    def object(self, path: str) -> Path:
        return self.store.object_path(self.old_manifest.file(path).sha256)

    def seed(self, verified: set[int]) -> set[int]:
        async def work() -> set[int]:
            places = await look_for_seeds(self.store, [self.file], [self.old])
            with self.store.disk.open_write(self.store.partial_path(self.file.sha256)) as opened:
                partial = PartialFile(self.store.disk, opened, self.file)
                return await plant(self.store, partial, verified, places)

        return asyncio.run(work())

    def right(self) -> set[int]:
        """Return the chunks whose bytes are in the partial file."""
        data = self.store.partial_path(self.file.sha256).read_bytes()
        found, offset = set(), 0
        for number, chunk in enumerate(self.file.chunks):
            end = offset + chunk.size_bytes
            if data[offset:end] == self.wanted[offset:end]:
                found.add(number)
            offset = end
        return found


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_all_but_what_changed_comes_from_the_installed_bundle(device: Device) -> None:
    planted = device.seed(set())
    assert planted == device.right()
    assert len(device.file.chunks) >= 4
    assert set(range(len(device.file.chunks))) - planted == {0, len(device.file.chunks) - 1}, (
        "the note and the last layer"
    )


def test_what_is_in_place_is_not_copied_again(device: Device) -> None:
    first = device.seed(set())
    path = device.store.partial_path(device.file.sha256)
    path.write_bytes(bytes(len(device.wanted)))
    assert device.seed(first) == first and device.right() == set()


def test_a_damaged_source_is_no_seed(device: Device) -> None:
    planted = device.seed(set())
    path = device.object("variants/fp32/model.onnx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    device.store.disk.unlink(device.store.partial_path(device.file.sha256))
    fewer = device.seed(set())
    assert len(fewer) == len(planted) - 1 and fewer == device.right()


@pytest.mark.parametrize("cut", [0, 1000, 200_000])
def test_a_source_that_lost_its_end_is_no_seed_there(device: Device, cut: int) -> None:
    path = device.object("variants/fp32/model.onnx")
    path.write_bytes(path.read_bytes()[:cut])
    planted = device.seed(set())
    assert planted == device.right() and len(planted) <= cut // 16384


@pytest.mark.parametrize("path", [CHUNK_INDEX_PATH, "variants/fp32/model.onnx", MANIFEST_PATH])
@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_without_index_or_source_everything_is_fetched(device: Device, path: str, damage: bytes | None) -> None:
    where = (
        device.store.object_path(device.old.bundle.manifest_sha256) if path == MANIFEST_PATH else device.object(path)
    )
    if damage is None:
        where.unlink()
    else:
        where.write_bytes(damage)
    assert device.seed(set()) == set()


def test_a_file_that_is_here_is_not_looked_for(device: Device) -> None:
    _put(device.store, device.file.sha256, device.wanted)
    assert asyncio.run(look_for_seeds(device.store, [device.file], [device.old])) == {}


def test_seeds_stay_as_long_as_they_are_needed_and_no_longer(device: Device) -> None:
    store = device.store
    seeds = {device.object(path) for path in (CHUNK_INDEX_PATH, "variants/fp32/model.onnx")}
    old = device.old.bundle.manifest_sha256
    store.collect({old, device.reference.manifest_sha256})  # as when the update is resolved
    assert all(path.is_file() for path in seeds)
    assert device.seed(set())
    store.collect({old, device.reference.manifest_sha256})
    assert store.partial_path(device.file.sha256).is_file() and all(path.is_file() for path in seeds)
    store.collect({device.reference.manifest_sha256})  # as when the old bundle has left its slot
    assert not any(path.exists() for path in seeds)
    assert store.partial_path(device.file.sha256).is_file()
    store.collect(set())
    assert [*(store.directory / "partial").iterdir()] == []
