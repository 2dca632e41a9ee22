from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet.stand_in_device import FACTS

from autoglm_edge_fleet import devices, telemetry
from autoglm_edge_fleet.database import Database
from autoglm_edge_fleet.errors import RefusedReport
from autoglm_edge_fleet.inbound import read_fetch, read_report
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.printable import printable
from autoglm_edge_protocol.deployment import DeploymentReport, ReportedState
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.telemetry import TelemetryBatch
from autoglm_edge_protocol.topics import TO_FLEET, Channel, Topic

DAY_S = 86_400.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "fleet.db")
    yield opened
    opened.close()


def test_telemetry_is_kept_for_a_bounded_time_and_in_a_bounded_number(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "FLEET_LIMITS", replace(FLEET_LIMITS, telemetry_days=2, telemetry_rows=5))
    for sequence in range(10):
        assert telemetry.take_telemetry(database, TelemetryBatch(device="d", boot_id="b", sequence=sequence))
    with database.transaction() as connection:
        connection.execute("UPDATE telemetry SET received_at = ? WHERE sequence >= 8", (100 * DAY_S,))
        connection.execute("UPDATE telemetry SET received_at = ? WHERE sequence < 8", (99 * DAY_S,))
    telemetry.prune_telemetry(database, 100 * DAY_S)
    assert [row[0] for row in database.read("SELECT sequence FROM telemetry ORDER BY id")] == [5, 6, 7, 8, 9]
    telemetry.prune_telemetry(database, 101.5 * DAY_S)
    assert [row[0] for row in database.read("SELECT sequence FROM telemetry ORDER BY id")] == [8, 9]


def test_the_number_of_devices_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "FLEET_LIMITS", replace(FLEET_LIMITS, devices=2))
    for name in ("a", "b", "a"):
        devices.admit(database, name)
    with pytest.raises(RefusedReport, match="more than 2 devices"):
        devices.admit(database, "c")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
FIELDS = [
    "device", "session", "sequence", "online", "at", "facts", "deployment", "command_id", "outcome", "result",
    "boot_id", "samples", "inference", "request_id", "sha256", "block_bytes", "ranges", "schema_version",
]  # fmt: skip
DOCUMENTS = st.dictionaries(st.sampled_from(FIELDS), st.one_of(st.sampled_from(["d", "0" * 64, 1]), JSON))


@given(st.one_of(st.binary(max_size=200), DOCUMENTS.map(lambda value: json.dumps(value).encode())))
def test_whatever_a_device_sends_is_read_or_refused(payload: bytes) -> None:
    for channel in TO_FLEET:
        topic = Topic("f", "d", channel)
        try:
            document = read_report(topic, payload)
            assert document.device == "d"
        except (ProtocolError, RefusedReport) as error:
            assert str(error)
    try:
        assert 0 < len(read_fetch(payload).blocks()) <= 64
    except (ProtocolError, RefusedReport) as error:
        assert str(error)


def test_a_generation_that_leaves_no_room_for_newer_ones_is_refused() -> None:
    deployment = DeploymentReport(generation=2**53 - 1, bundle=None, phase="confirmed")
    report = ReportedState(device="d", session=1, sequence=1, at=0.0, facts=FACTS, deployment=deployment)
    with pytest.raises(RefusedReport, match="nobody issued"):
        read_report(Topic("f", "d", Channel.REPORTED), report.to_bytes())


@given(st.text(max_size=300), st.integers(10, 250))
def test_printable_text_fits_on_one_line(text: str, limit: int) -> None:
    line = printable(text, limit)
    assert line.isprintable() and len(line) <= limit
    if text.isprintable() and len(text) <= limit:
        assert line == text
