from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.bundles import make_bundle

from autoglm_edge_fleet.database import DATABASE_FILE, Database
from autoglm_edge_fleet.errors import AlreadyAFleet, BundleConflict, NewerDatabase, StorageError
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.schema import MIGRATIONS
from autoglm_edge_protocol.bundle import pack, read_manifest
from autoglm_edge_protocol.errors import DigestMismatch, MalformedBundle


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet.init(tmp_path / "fleet", "f") as made:
        yield made


def test_publishing_again_changes_nothing_and_other_content_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "one")
    first = fleet.publish(bundle)
    assert first.is_new and first.new_bytes == first.bundle.size_bytes
    again = fleet.publish(bundle)
    assert not again.is_new and again.new_bytes == 0 and again.bundle == first.bundle
    with pytest.raises(BundleConflict, match="raise its version"):
        fleet.publish(make_bundle(tmp_path / "other", seed=1))
    assert [str(each.id) for each in fleet.bundles()] == ["tiny@1.0.0"]
    assert fleet.damaged_objects() == ()


def test_packed_and_directory_are_the_same_bundle(fleet: Fleet, tmp_path: Path) -> None:
    pack(make_bundle(tmp_path / "one"), tmp_path / "one.bundle")
    assert fleet.publish(tmp_path / "one.bundle").is_new
    assert not fleet.publish(tmp_path / "one").is_new


def test_equal_files_are_stored_once(fleet: Fleet, tmp_path: Path) -> None:
    fleet.publish(make_bundle(tmp_path / "one"))
    labels = read_manifest(tmp_path / "one").file("labels.txt")
    second = fleet.publish(make_bundle(tmp_path / "two", version="2.0.0"))
    assert second.new_bytes == second.bundle.size_bytes - labels.size_bytes


def test_progress_counts_every_byte_once_for_verification_and_once_for_storage(fleet: Fleet, tmp_path: Path) -> None:
    counts: list[int] = []
    done = fleet.publish(make_bundle(tmp_path / "one"), counts.append)
    assert sum(counts) == 2 * done.bundle.size_bytes - done.bundle.reference.manifest_size_bytes


@pytest.mark.parametrize("damage", ["changed", "missing", "extra"])
def test_an_unsound_bundle_leaves_nothing(fleet: Fleet, tmp_path: Path, damage: str) -> None:
    bundle = make_bundle(tmp_path / "one")
    model = bundle / "variants/fp32/model.onnx"
    if damage == "changed":
        model.write_bytes(b"!" + model.read_bytes()[1:])
    elif damage == "missing":
        model.unlink()
    else:
        (bundle / "more").write_bytes(b"")
    with pytest.raises((DigestMismatch, MalformedBundle)):
        fleet.publish(bundle)
    assert fleet.bundles() == ()
    assert not [path for path in (fleet.directory / "repository").rglob("*") if path.is_file()]


@pytest.mark.parametrize("damaged", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_object_is_replaced(fleet: Fleet, tmp_path: Path, damaged: Callable[[bytes], bytes]) -> None:
    fleet.publish(make_bundle(tmp_path / "one"))
    sha256 = read_manifest(tmp_path / "one").file("variants/fp32/model.onnx").sha256
    stored = fleet.directory / "repository" / "objects" / sha256[:2] / sha256
    stored.write_bytes(damaged(stored.read_bytes()))
    assert fleet.damaged_objects() == (sha256,)
    fleet.publish(tmp_path / "one")
    assert fleet.damaged_objects() == ()


def publish_in_process(fleet: Path, bundle: Path) -> None:
    with Fleet.open(fleet) as opened:
        opened.publish(bundle)


def test_kill_9_at_any_moment_of_a_publication_loses_nothing(fleet: Fleet, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["autoglm_edge_fleet.fleet"])
    source = random.Random(0)
    bundles = [
        make_bundle(tmp_path / f"b{n}", version=f"{n}.0.0", variants=[f"v{m}" for m in range(20)]) for n in range(12)
    ]
    whole_s = 0.0
    for bundle in bundles[:2]:  # the first one also starts the server of processes
        started = time.monotonic()
        process = spawn.Process(target=publish_in_process, args=(fleet.directory, bundle))
        process.start()
        process.join()
        whole_s = time.monotonic() - started
    killed = 0
    for bundle in bundles[2:]:
        process = spawn.Process(target=publish_in_process, args=(fleet.directory, bundle))
        process.start()
        process.join(source.uniform(0, whole_s))
        if process.is_alive():
            killed += 1
            process.kill()
        process.join()
        assert fleet.damaged_objects() == (), "a published bundle is not whole"
        fleet.publish(bundle)
        assert fleet.damaged_objects() == ()
        assert not any((fleet.directory / "repository" / "incoming").iterdir())
    assert killed >= 3
    assert len(fleet.bundles()) == len(bundles)


def test_a_fleet_is_made_once_and_an_interrupted_beginning_is_completed(tmp_path: Path) -> None:
    Fleet.init(tmp_path / "fleet").close()
    with pytest.raises(AlreadyAFleet):
        Fleet.init(tmp_path / "fleet")
    (tmp_path / "fleet" / "fleet.toml").unlink()
    Fleet.init(tmp_path / "fleet", "again").close()
    with Fleet.open(tmp_path / "fleet") as fleet:
        assert fleet.config.name == "again"


def test_a_database_is_durable_migrated_and_never_read_when_newer(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    database = Database(path)
    pragmas = {name: database.read(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "user_version")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "user_version": len(MIGRATIONS)}
    database.close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    raw.close()
    with pytest.raises(NewerDatabase, match="update"):
        Database(path)


def test_a_file_that_is_no_database_is_one_error(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="not a database"):
        Database(tmp_path / DATABASE_FILE)


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / DATABASE_FILE)
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute("INSERT INTO devices (name) VALUES ('d')")
        raise ZeroDivisionError
    assert database.read("SELECT * FROM devices") == []
    other = Database(tmp_path / DATABASE_FILE)
    before = database.data_version()
    with other.transaction() as connection:
        connection.execute("INSERT INTO devices (name) VALUES ('d')")
    assert database.data_version() != before
    other.close()
    database.close()
