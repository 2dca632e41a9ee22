"""What is kept of an update: read back, migrated from the first release, and left alone when a newer one wrote it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from autoglm_edge_agent.config import ProbationSection
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.fit import Capabilities
from autoglm_edge_agent.updates.probation import Baseline, Evidence
from autoglm_edge_agent.updates.record import MOST_BEGUN, UpdateRecord, read_record, write_record
from autoglm_edge_agent.updates.states import ENDED, Event, State
from autoglm_edge_agent.updates.updater import Updater
from autoglm_edge_protocol.deployment import DesiredState, Installed, Reason
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.histogram import HistogramRecorder
from autoglm_edge_protocol.probation import ProbationTerms, ShadowTerms

_BUNDLE = (
    '{"name":"linear","version":"2",'
    '"manifest_sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","manifest_size_bytes":1469}'
)
FIRST_RELEASE = (
    '{"schema_version":1,"generation":7,"bundle":' + _BUNDLE + ',"requested_variant":null,"variant":"fp32",'
    '"state":"trying","trials":3,"total_bytes":5000,"present_bytes":10,"fetched_bytes":4990,"reason":null}'
).encode()
"""As the first release wrote it, byte for byte but for the bundle."""
FIRST_SLOTS = (
    '{"schema_version":1,"current":{"bundle":' + _BUNDLE + ',"variant":"fp32"},"previous":null,"staging":null,'
    '"last_rollback":"c1"}'
).encode()


def test_a_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    recorder = HistogramRecorder()
    recorder.record(1234.5)
    record = UpdateRecord(
        generation=3,
        state=State.PROBATION,
        probation=ProbationTerms(shadow=ShadowTerms()),
        begun={State.TRYING: 2, State.PROBATION: 1},
        baseline=Baseline(requests=5, run_us=1.5),
        evidence=Evidence(elapsed_s=1.5, requests=3, run=recorder.take(), differed=0.5),
        reason=Reason(code="a", message="b"),
    )
    write_record(Disk(), tmp_path / "update.json", record)
    assert read_record(tmp_path / "update.json") == record


def test_a_record_of_the_first_release_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "update.json"
    path.write_bytes(FIRST_RELEASE)
    record = read_record(path)
    assert (record.schema_version, record.state, record.generation) == (2, State.TRYING, 7)
    assert record.begun == {State.TRYING: 3} and record.fetched_bytes == 4990
    write_record(Disk(), path, record)
    assert read_record(path) == record


@pytest.mark.parametrize("damage", [b"", b"{", b"\x00" * 500, b'{"state":"dancing"}', b"[]"])
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "update.json").write_bytes(damage)
    assert read_record(tmp_path / "update.json") == UpdateRecord() == read_record(tmp_path / "missing")


# loops ----


@pytest.mark.parametrize("state", [state for state in State if state in MOST_BEGUN])
def test_every_step_is_begun_so_often_and_no_more(state: State) -> None:
    record = UpdateRecord(state=state, begun={state: 1})
    starts = 1
    while not record.exhausted:
        record = record.resumed()
        starts += 1
    assert starts == MOST_BEGUN[state] + 1
    assert not record.paused().exhausted  # what was ended in order is not held against it


def test_every_state_that_is_no_end_has_a_limit_but_going_back() -> None:
    assert {state for state in State if state not in ENDED} - set(MOST_BEGUN) == {State.ROLLING_BACK}


def test_a_loop_over_several_states_is_counted_too() -> None:
    record = UpdateRecord(state=State.TRYING, begun={State.TRYING: 1})
    for _ in range(MOST_BEGUN[State.TRYING]):
        record = record.after(Event.AGREED).after(Event.INTERRUPTED)
    assert record.exhausted
    confirmed = UpdateRecord(state=State.PROBATION, begun=record.begun).after(Event.PASSED)
    assert confirmed.begun == {}


# an unknown newer release ----


class NoModels:
    """Runs nothing, and must not be asked to."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked of the models")


class NoRequests:
    connected = False

    def request(self, request: object) -> bool:
        raise AssertionError("something was fetched")

    credit = request

    async def acknowledged_credit(self, credit: object) -> None:
        self.credit(credit)

    def follow(self, sha256: str) -> None:
        raise AssertionError(f"{sha256} was followed")

    unfollow = follow


def _updater(state: Path) -> Updater:
    store = Store(state, Disk())
    fetcher = Fetcher(store, NoRequests(), lambda _sha256, _bytes: None)
    return Updater(store, fetcher, NoModels(), Capabilities({}, 1), 0, ProbationSection(), lambda: None)


def _contents(state: Path) -> dict[str, bytes]:
    return {str(path.relative_to(state)): path.read_bytes() for path in state.rglob("*") if path.is_file()}


def _newer(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "schema_version": 99, "unheard": {"of": 1}}).encode()


@pytest.mark.parametrize(
    ("slots", "record"),
    [
        (_newer(FIRST_SLOTS), FIRST_RELEASE),
        (FIRST_SLOTS, _newer(FIRST_RELEASE)),
        (_newer(FIRST_SLOTS), _newer(FIRST_RELEASE)),
    ],
)
async def test_what_a_newer_release_wrote_is_left_alone_and_its_model_serves(
    tmp_path: Path, slots: bytes, record: bytes
) -> None:
    (tmp_path / "slots.json").write_bytes(slots)
    (tmp_path / "update.json").write_bytes(record)
    (tmp_path / "bundles" / "x").mkdir(parents=True)
    (tmp_path / "bundles" / "x" / "model.onnx").write_bytes(b"model")
    before = _contents(tmp_path)
    updater = _updater(tmp_path)
    updater.resume()
    running = asyncio.create_task(updater.run())
    current = updater.slots.current
    assert current is not None and current.bundle.version == "2" and current.variant == "fp32"
    assert not await updater.desire(DesiredState(fleet="f", device="d", generation=100, bundle=None))
    with pytest.raises(Refusal) as refused:
        await updater.roll_back("c2")
    assert refused.value.reason.code == "newer-state"
    assert await updater.unserviceable(current, Reason(code="worker-crashed", message="x")) == current
    report = updater.report()
    assert report is not None and report.reason is not None and report.reason.code == "newer-state"
    assert "newer agent" in report.reason.message
    await asyncio.sleep(0.05)
    updater.pause()
    running.cancel()
    await asyncio.wait({running})
    assert _contents(tmp_path) == before


def test_slots_of_a_newer_release_that_say_nothing_familiar_name_nothing(tmp_path: Path) -> None:
    for text in ('{"schema_version":9}', '{"schema_version":9,"current":{"bundle":"?"}}'):
        (tmp_path / "slots.json").write_text(text)
        (tmp_path / "update.json").write_bytes(FIRST_RELEASE)
        assert _updater(tmp_path).slots.current is None


def test_slots_of_the_first_release_are_read(tmp_path: Path) -> None:
    (tmp_path / "slots.json").write_bytes(FIRST_SLOTS)
    slots = Store(tmp_path, Disk()).read_slots()
    assert slots is not None
    assert isinstance(slots.current, Installed) and not slots.unproven and slots.last_rollback == "c1"
