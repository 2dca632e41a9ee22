"""The daemon, a real broker and devices that speak the protocol."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker
from tests.fakes.bundles import make_bundle
from tests.fleet.stand_in_device import StandInDevice

from autoglm_edge_fleet.errors import InUse
from autoglm_edge_fleet.fleet import DeviceStatus, Fleet
from autoglm_edge_fleet.service import serve
from autoglm_edge_fleet.trust.custody import Foundation
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.commands import Outcome
from autoglm_edge_protocol.names import BundleId
from autoglm_edge_protocol.topics import Channel, Topic

TINY = BundleId(name="tiny", version="1.0.0")


class Served:
    """A fleet that is served, and the lines its daemon says."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet, self.url = fleet, url
        self.lines: list[str] = []

    def device(self, name: str = "dev1", block_bytes: int = 56 * 1024) -> StandInDevice:
        return StandInDevice(
            self.url, self.fleet.config.name, name, block_bytes, self.fleet.trust.root_path.read_bytes()
        )

    def status(self, name: str = "dev1") -> DeviceStatus | None:
        return next((each for each in self.fleet.status() if each.device.name == name), None)

    def is_online(self, name: str = "dev1") -> bool:
        status = self.status(name)
        return status is not None and status.device.online

    async def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_said(self, text: str, timeout_s: float = 20) -> None:
        await self.until(lambda: any(text in line for line in self.lines), timeout_s)

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(serve(self.fleet.directory, self.lines.append, stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 20)


@pytest.fixture
async def served(broker: Broker, tmp_path: Path) -> AsyncIterator[Served]:
    with Fleet.init(tmp_path / "fleet", "test-fleet", broker.url) as fleet:
        fleet.trust.found(Foundation(tmp_path / "root-keys", plain=True))
        fleet.publish(make_bundle(tmp_path / "bundle", variants=("fp32", "int8")))
        served = Served(fleet, broker.url)
        async with served.daemon():
            await served.until_said("connected to")
            yield served


async def test_devices_fetch_what_they_are_told_to_run_and_the_fleet_sees_it(served: Served, tmp_path: Path) -> None:
    async with served.device("dev1") as one, served.device("dev2") as two:
        await served.until(lambda: served.is_online("dev1") and served.is_online("dev2"))
        issued = served.fleet.deploy(TINY, served.fleet.device_names(), "int8")
        ended = await asyncio.to_thread(served.fleet.wait_for_deployments, issued, 20)
        assert [each.phase for each in ended] == ["confirmed", "confirmed"]
        manifest = read_manifest(tmp_path / "bundle")
        variant = manifest.variant("int8")
        assert variant is not None
        for device in (one, two):
            assert device.current is not None and device.current.variant == "int8"
            assert {entry.sha256 for entry in manifest.device_files(variant)} <= set(device.files)
        sent = sum(len(data) for data in one.files.values())
        await served.until(lambda: (s := served.status()) and s.device.sent_bytes == sent)
        await served.until_said("dev1: tiny@1.0.0 (generation 1): confirmed")
    await served.until(lambda: served.status() is not None)


async def test_a_later_generation_replaces_the_one_before(served: Served, tmp_path: Path) -> None:
    served.fleet.publish(make_bundle(tmp_path / "next", version="1.1.0"))
    first = served.fleet.deploy(TINY, ["dev1"], create=True)
    second = served.fleet.deploy(BundleId(name="tiny", version="1.1.0"), ["dev1"])
    assert [each.generation for each in (*first, *second)] == [1, 2]
    async with served.device() as device:
        await served.until(lambda: served.fleet.refresh(second)[0].succeeded)
        assert device.current is not None and device.current.bundle.version == "1.1.0"
    assert served.fleet.refresh(first)[0].phase == "superseded"


async def test_a_device_and_a_broker_that_lost_their_memory_are_told_again(served: Served, broker: Broker) -> None:
    issued = served.fleet.deploy(TINY, ["dev1"], create=True)
    async with served.device() as device:
        await served.until(lambda: served.fleet.refresh(issued)[0].succeeded)
    broker.kill()
    shutil.rmtree(broker.data)
    broker.restart()
    device = served.device()
    device.session = 10
    async with device:
        await served.until(lambda: device.generations, 40)


async def test_a_command_is_answered_once(served: Served) -> None:
    async with served.device() as device:
        await served.until(served.is_online)
        command = served.fleet.command("dev1", "ping", {"text": "hello"})
        await served.until(lambda: served.fleet.queued(command.command_id).answer)
        answer = served.fleet.queued(command.command_id).answer
        assert answer is not None and answer.outcome is Outcome.SUCCEEDED and answer.result == {"echo": "hello"}
        late = answer.model_copy(update={"outcome": Outcome.FAILED})
        await device.say(Channel.ANSWER, late.to_bytes())
        await device.say(Channel.ANSWER, late.model_copy(update={"command_id": "never"}).to_bytes())
        await served.until_said("an answer to a command that was never sent")
        assert served.fleet.queued(command.command_id).answer == answer


async def test_a_command_waits_for_its_device(served: Served) -> None:
    async with served.device() as device:
        await served.until(served.is_online)
        await device.leave()
        await served.until(lambda: not served.is_online())
    command = served.fleet.command("dev1", "ping")
    async with served.device():
        await served.until(lambda: served.fleet.queued(command.command_id).answer)


async def test_telemetry_counts_once_and_is_summed_up(served: Served) -> None:
    async with served.device() as device:
        await device.send_telemetry(0, [1000.0] * 99 + [9000.0], errors=1)
        await device.send_telemetry(0, [1000.0] * 99 + [9000.0], errors=1)
        await device.send_telemetry(1, [1000.0] * 100)
        await served.until(lambda: (s := served.status()) and s.telemetry and s.telemetry.requests >= 200)
    status = served.status()
    assert status is not None and status.telemetry is not None
    assert (status.telemetry.requests, status.telemetry.errors) == (200, 1)
    assert status.telemetry.p50_us == pytest.approx(1000, rel=0.02)  # the histogram's stated error
    assert status.telemetry.newest is not None and status.telemetry.newest.temperature_c == 48.0


async def test_what_is_not_published_or_not_there_is_refused(served: Served, tmp_path: Path) -> None:
    labels = read_manifest(tmp_path / "bundle").file("labels.txt").sha256
    async with served.device() as device:
        await device.ask("0" * 64, [0], 7)
        await device.ask(labels, [5], 8)
        await served.until(lambda: len(device.refusals) == 2)
    found = {(each.request_id, each.reason.code) for each in device.refusals}
    assert found == {(7, "not-found"), (8, "out-of-range")}


async def test_a_lost_object_is_refused_until_it_is_published_again(served: Served, tmp_path: Path) -> None:
    labels = read_manifest(tmp_path / "bundle").file("labels.txt")
    lost = served.fleet.directory / "repository" / "objects" / labels.sha256[:2] / labels.sha256
    lost.unlink()
    assert served.fleet.damaged_objects() == (labels.sha256,)
    async with served.device() as device:
        await device.ask(labels.sha256, [0])
        await served.until(lambda: device.refusals)
        assert not served.fleet.publish(tmp_path / "bundle").is_new
        assert await device.fetch(labels.sha256, labels.size_bytes) == b"zero\none\n"
    assert served.fleet.damaged_objects() == ()


HOSTILE = {
    "no JSON": (Channel.REPORTED, b"\xff\xfe{"),
    "not an object": (Channel.TELEMETRY, b"[1]"),
    "deep": (Channel.TELEMETRY, b"[" * 50_000),
    "a newer schema": (Channel.PRESENCE, b'{"schema_version":99,"device":"dev1","session":1,"online":true}'),
    "another device": (Channel.PRESENCE, b'{"device":"dev9","session":1,"online":true}'),
    "a huge number": (Channel.PRESENCE, b'{"device":"dev1","session":%d,"online":true}' % 10**30),
    "too large": (Channel.TELEMETRY, b'{"device":"dev1","boot_id":"' + b"x" * 200_000 + b'"}'),
    "a false histogram": (
        Channel.TELEMETRY,
        b'{"device":"dev1","boot_id":"b","sequence":1,"inference":[{"bundle":"b","variant":"v","started_at":0,'
        b'"duration_s":1,"requests":1,"errors":0,"latency":{"count":1,"max_us":1,"buckets":{"99999999":1}}}]}',
    ),
    "an infinite duration": (
        Channel.TELEMETRY,
        b'{"device":"dev1","boot_id":"b","sequence":1,"inference":[{"bundle":"b","variant":"v","started_at":0,'
        b'"duration_s":Infinity,"requests":0,"errors":0,"latency":{}}]}',
    ),
    "half a character": (
        Channel.ANSWER,
        b'{"device":"dev1","command_id":"c","outcome":"failed","result":{"a":"\\ud800"}}',
    ),
    "a false request": (Channel.FETCH, b'{"request_id":1,"sha256":"../../etc/passwd","block_bytes":512,"ranges":[]}'),
}


async def test_hostile_messages_are_refused_one_by_one_and_change_nothing(served: Served) -> None:
    async with served.device() as device:
        await served.until(lambda: served.is_online() and (s := served.status()) and s.device.report)
        before = served.status()
        for name, (channel, payload) in HOSTILE.items():
            served.lines.clear()
            if channel is Channel.FETCH:
                device.link.send_block(device.topic(channel), payload)
            else:
                await device.say(channel, payload)
            await served.until_said("refused", 10)
            assert all(line.isprintable() for line in served.lines), name
        # Topics that no device would use reach only the parser.
        await device.link.publish(str(Topic("test-fleet", "dev1", Channel.PRESENCE)).replace("dev1", "a.b"), b"{}")
        assert served.status() == before
        await device.report()
        await served.until(lambda: (s := served.status()) and s.device.report and s.device.report.sequence == 2)


async def test_an_old_will_is_no_news(served: Served) -> None:
    async with served.device() as device:
        await served.until(served.is_online)
        old = device._presence(False).model_copy(update={"session": device.session - 1})
        await device.say(Channel.PRESENCE, old.to_bytes())
        await device.send_telemetry(0, [1.0])
        await served.until(lambda: (s := served.status()) and s.telemetry)
        assert served.is_online()


async def test_a_broken_connection_is_seen_by_its_will(served: Served) -> None:
    device = served.device()
    async with device:
        await served.until(served.is_online)
        session = device.session
        connection = device.link._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)
        await served.until_said("dev1: offline")
        await served.until(lambda: served.is_online() and device.session > session)


async def test_only_one_process_serves_a_fleet(served: Served) -> None:
    with pytest.raises(InUse, match="another process serves"):
        await serve(served.fleet.directory, print, asyncio.Event())


async def test_everything_goes_on_after_the_broker_was_killed(served: Served, broker: Broker) -> None:
    async with served.device() as device:
        await served.until(served.is_online)
        broker.kill()
        issued = served.fleet.deploy(TINY, ["dev1"])
        command = served.fleet.command("dev1", "ping")
        await served.until_said("trying again")
        broker.restart()
        await served.until(lambda: served.fleet.refresh(issued)[0].succeeded, 40)
        await served.until(lambda: served.fleet.queued(command.command_id).answer)
        assert device.current is not None


async def test_what_was_ordered_and_said_while_no_daemon_ran_is_made_up_for(broker: Broker, tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "fleet", "f", broker.url) as fleet:
        fleet.trust.found(Foundation(tmp_path / "root-keys", plain=True))
        served = Served(fleet, broker.url)
        async with served.daemon(), served.device():
            await served.until(served.is_online)
        fleet.publish(make_bundle(tmp_path / "bundle"))
        async with served.device() as device:
            issued = fleet.deploy(TINY, ["dev1"])
            await device.send_telemetry(0, [1.0])  # kept by the broker: the daemon's session is persistent
            async with served.daemon():
                await served.until(lambda: fleet.refresh(issued)[0].succeeded)
                await served.until(lambda: (s := served.status()) and s.telemetry and s.telemetry.requests == 1)
