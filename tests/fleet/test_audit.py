from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.bundles import make_bundle

from autoglm_edge_fleet import audit
from autoglm_edge_fleet.database import DATABASE_FILE, Database
from autoglm_edge_fleet.errors import StorageError
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.schema import MIGRATIONS
from autoglm_edge_fleet.trust.custody import Foundation


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / DATABASE_FILE)
    yield made
    made.close()


def test_everything_an_owner_does_is_in_the_log(tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "fleet", "f") as fleet:
        keys = [str(path) for path in fleet.trust.found(Foundation(tmp_path / "root", plain=True))]
        bundle = fleet.publish(make_bundle(tmp_path / "bundle")).bundle
        fleet.deploy(bundle.id, ["one", "two"], create=True)
        fleet.deploy(bundle.id, ["one"], downgrade_reason="back to what worked")
        fleet.command("one", "ping")
        fleet.trust.rotate("timestamp", plain=True, sign_with=keys[:1])
        fleet.trust.sign(keys[1:2])
        fleet.trust.rotate("model-tiny", plain=True)
        fleet.trust.refresh(force=True)
        log = [(entry.action, entry.subject) for entry in fleet.audit()]
        assert log == [
            ("found", "root"),
            ("publish", "tiny@1.0.0"),
            ("deploy", "one"),
            ("deploy", "two"),
            ("deploy-allowing-downgrade", "one"),
            ("command", "one"),
            ("rotate timestamp", "root 2"),
            ("sign root", "root 2"),
            ("rotate", "model-tiny"),
            ("refresh", "snapshot, timestamp"),
        ]
        assert [entry.details.get("installed") for entry in fleet.audit()][6:8] == [False, True]
        assert [entry.number for entry in fleet.audit(2)] == [9, 10]
        assert fleet.first_broken_entry() is None


def test_rows_are_neither_changed_nor_taken_out(database: Database) -> None:
    for number in range(3):
        audit.note_alone(database, "test", str(number), text="ä", flag=True, nothing=None)
    for statement in ("UPDATE audit SET actor = 'nobody'", "DELETE FROM audit WHERE number = 2"):
        with pytest.raises(StorageError, match="only grows"), database.transaction() as connection:
            connection.execute(statement)
    assert audit.first_broken(database) is None
    assert audit.list_audit(database)[1].details == {"text": "ä", "flag": True, "nothing": None}


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE number = 2", 2),
        ("DELETE FROM audit WHERE number = 2", 2),
        ("DELETE FROM audit WHERE number = 1", 1),
        ("UPDATE audit SET digest = hex(zeroblob(32)) WHERE number = 3", 3),
    ],
)
def test_what_is_done_behind_the_programs_back_is_noticed(database: Database, statement: str, broken: int) -> None:
    for number in range(3):
        audit.note_alone(database, "test", str(number))
    with database.transaction() as connection:
        connection.execute("DROP TRIGGER audit_keeps_rows")
        connection.execute("DROP TRIGGER audit_keeps_values")
        connection.execute(statement)
    assert audit.first_broken(database) == broken


def test_a_fleet_of_the_first_version_is_migrated_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    old = sqlite3.connect(path)
    old.executescript(MIGRATIONS[0] + "PRAGMA user_version=1;")
    old.execute("INSERT INTO devices (name, generation, published_generation) VALUES ('dev1', 3, 3)")
    old.execute("INSERT INTO bundles VALUES (1, 'tiny', '1.0.0', ?, 7, 9, '', '[\"fp32\"]', 1.0)", ("0" * 64,))
    old.execute(
        "INSERT INTO deployments (device, generation, bundle_id, issued_at, updated_at) VALUES ('dev1', 3, 1, 1, 1)"
    )
    old.commit()
    old.close()
    database = Database(path)
    row = database.read("SELECT generation, published_epoch FROM devices")[0]
    assert tuple(row) == (3, "")
    assert database.read("SELECT downgrade_reason FROM deployments")[0][0] is None
    audit.note_alone(database, "test", "x")
    assert audit.first_broken(database) is None
    database.close()


def test_a_user_without_a_name_is_somebody_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert audit.actor().partition("@")[0].isdigit()
