"""The agent as a whole, without a broker: how it ends, and what it remembers of its end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.agent.trust.devices import DEVICE, FLEET, reference
from tests.fakes.certificates import Authority
from tests.fakes.waiting import until

from autoglm_edge_agent import app
from autoglm_edge_agent.app import Agent
from autoglm_edge_agent.config import Config
from autoglm_edge_agent.telemetry.reporter import TelemetryReporter
from autoglm_edge_agent.updates.record import UpdateRecord, read_record, write_record
from autoglm_edge_agent.updates.states import State
from autoglm_edge_protocol.durable import Disk


def _config(directory: Path, **broker: object) -> Config:
    settings = {
        "device": {"fleet": FLEET, "name": DEVICE},
        "broker": {"url": "mqtt://127.0.0.1:9", **broker},
        "storage": {"directory": directory},
        "inference": {"socket": None, "http": None},
        "trust": {"insecure": True},
    }
    return Config.model_validate(settings)


async def fail(_reporter: TelemetryReporter) -> None:
    raise ZeroDivisionError("a defect")


@pytest.mark.parametrize("name", ["slots.json", "update.json", "answers.json", "trust/memory.json"])
async def test_a_file_whose_bytes_the_disk_has_lost_keeps_nobody_from_starting(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / name).symlink_to("/proc/self/mem")  # of which nothing is mapped at its beginning: EIO
    monkeypatch.setattr(TelemetryReporter, "run", fail)  # what ends it is after its start
    with pytest.raises(ZeroDivisionError):
        await Agent(_config(tmp_path)).run()


async def test_a_defect_that_ends_the_agent_counts_as_one_more_beginning_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TelemetryReporter, "run", fail)
    path = tmp_path / "update.json"
    begun = UpdateRecord(
        generation=1, bundle=reference(), variant="fp32", state=State.FETCHING, begun={State.FETCHING: 3}
    )
    write_record(Disk(), path, begun)
    with pytest.raises(ZeroDivisionError):
        await Agent(_config(tmp_path)).run()
    # An end in order is no sign of anything. This one may be what the step has brought about, and comes again.
    assert read_record(path).begun == {State.FETCHING: 4}


async def test_a_board_whose_clock_is_behind_begins_above_what_the_one_before_it_has_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrolled_at = time.time() + 1e6  # by the fleet's clock; what the fleet knows of the name is of before that
    monkeypatch.setattr(TelemetryReporter, "run", fail)
    with pytest.raises(ZeroDivisionError):
        await Agent(_config(tmp_path, time_floor=enrolled_at)).run()
    assert int((tmp_path / "session").read_text()) >= enrolled_at - 1


async def test_tls_files_that_cannot_be_used_do_not_end_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "CONNECT_AGAIN_S", 0.05)
    authority = tmp_path / "authority.pem"
    authority.write_bytes(b"lost")
    running = asyncio.create_task(Agent(_config(tmp_path, url="mqtts://127.0.0.1:9", ca_file=authority)).run())
    await until(lambda: "cannot be used" in caplog.text, 10)
    assert "Connection refused" not in caplog.text and not running.done()
    Authority(tmp_path)
    await until(lambda: "Connection refused" in caplog.text or running.done(), 10)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
