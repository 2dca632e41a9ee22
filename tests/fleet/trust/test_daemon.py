"""The daemon and its signatures, seen from a device that trusts nothing but the first root."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker
from tests.fakes.bundles import make_bundle
from tests.fleet.stand_in_device import StandInDevice
from tests.fleet.test_serving import TINY, Served

from autoglm_edge.fleet_tables import reasons
from autoglm_edge_fleet.errors import NoTrust, WrongPassphrase
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.service import serve
from autoglm_edge_fleet.trust.custody import Foundation
from autoglm_edge_fleet.trust.verify import client
from autoglm_edge_protocol.deployment import DesiredState, Reason, TrustReport
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.probation import ProbationTerms, ShadowTerms

pytestmark = pytest.mark.one_broker

SECRET = "correct horse battery"


@pytest.fixture
def served(broker: Broker, tmp_path: Path) -> Iterator[Served]:
    with Fleet.init(tmp_path / "fleet", "f", broker.url) as fleet:
        fleet.trust.found(Foundation(tmp_path / "root-keys", plain=True))
        fleet.publish(make_bundle(tmp_path / "bundle"))
        yield Served(fleet, broker.url)


async def fetch_metadata(device: StandInDevice, folder: Path) -> None:
    """Fetch all that the catalogue names, in blocks, by digest."""
    (folder / "metadata").mkdir(parents=True)
    for name, file in device.catalogue.items():
        (folder / "metadata" / name).write_bytes(await device.fetch(file.sha256, file.size_bytes))


async def test_a_device_can_prove_what_it_was_told_with_what_it_fetches(served: Served, tmp_path: Path) -> None:
    served.fleet.publish(make_bundle(tmp_path / "other", name="other"))
    root = served.fleet.trust.root_path.read_bytes()
    async with served.daemon(), served.device(block_bytes=512) as device:
        issued = served.fleet.deploy(TINY, ["dev1"], create=True)
        await served.until(lambda: served.fleet.refresh(issued)[0].succeeded)
        assert [name.partition(".")[2] for name in device.catalogue if "model" in name] == ["model-tiny.json"]
        await fetch_metadata(device, tmp_path / "fetched")
        updater = client(tmp_path / "fetched", tmp_path, root)
        target = updater.get_targetinfo("tiny/1.0.0/manifest.json")
        assert target is not None and device.current is not None
        assert target.hashes == {"sha256": device.current.bundle.manifest_sha256}


async def test_what_a_message_has_named_can_be_fetched_after_a_refresh(served: Served, tmp_path: Path) -> None:
    async with served.daemon(), served.device() as device:
        issued = served.fleet.deploy(TINY, ["dev1"], create=True)
        await served.until(lambda: served.fleet.refresh(issued)[0].succeeded)
        for _ in range(3):
            served.fleet.trust.refresh(force=True)
        await asyncio.sleep(0.5)
        await fetch_metadata(device, tmp_path / "fetched")
        client(tmp_path / "fetched", tmp_path, served.fleet.trust.root_path.read_bytes()).refresh()


async def test_a_new_director_signs_anew_and_the_old_one_is_worth_nothing(served: Served, tmp_path: Path) -> None:
    keys = [str(path) for path in sorted((tmp_path / "root-keys").iterdir())]
    async with served.daemon():
        async with served.device() as device:
            issued = served.fleet.deploy(TINY, ["dev1"], create=True)
            await served.until(lambda: served.fleet.refresh(issued)[0].succeeded)
            before = device.link
        assert served.fleet.trust.rotate("director", plain=True, sign_with=keys[:2]).pending is None
        second = served.fleet.directory / "repository" / "metadata" / "2.root.json"
        newer = StandInDevice(served.url, "f", "dev1", root=second.read_bytes())
        async with newer:
            await served.until(lambda: newer.generations == [1])
            assert "2.root.json" in newer.catalogue
        assert before is not newer.link


async def test_settled_devices_are_not_told_again_until_signatures_are_renewed(served: Served) -> None:
    async with served.device() as device:
        async with served.daemon():
            issued = served.fleet.deploy(TINY, ["dev1"], create=True)
            await served.until(lambda: served.fleet.refresh(issued)[0].succeeded)
        async with served.daemon():
            served.fleet.trust.refresh(force=True)
            await asyncio.sleep(1)
            assert device.generations == [1]


async def test_a_fleet_without_keys_is_not_served_unless_asked_for(broker: Broker, tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "fleet", "f", broker.url) as fleet:
        with pytest.raises(NoTrust, match="fleet init") as caught:
            await serve(fleet.directory, print, asyncio.Event())
        assert "\n" not in str(caught.value) and str(fleet.directory) in str(caught.value)
        fleet.publish(make_bundle(tmp_path / "bundle"))
        lines: list[str] = []
        stop = asyncio.Event()
        task = asyncio.create_task(serve(fleet.directory, lines.append, stop, insecure=True))
        async with StandInDevice(broker.url, "f", "dev1") as device:
            fleet.deploy(TINY, ["dev1"], create=True)
            async with asyncio.timeout(20):
                while not device.generations:
                    await asyncio.sleep(0.02)
        stop.set()
        await task
        assert lines[0].startswith("INSECURE: this fleet has no keys")
        # Keys that come later sign what was published before.
        fleet.trust.found(Foundation(tmp_path / "root-keys", plain=True))
        assert fleet.trust.verify().problems == () and fleet.trust.verify().bundles == 1


async def test_without_the_directors_key_all_else_goes_on_and_one_line_says_so(served: Served, tmp_path: Path) -> None:
    away = next((served.fleet.directory / "keys").glob("director-*.pem"))
    away.rename(tmp_path / "director.pem")
    async with served.daemon():
        await served.until_said("wait for the director's key")
        issued = served.fleet.deploy(TINY, ["dev1"], create=True)
        async with served.device() as device:
            await served.until(served.is_online)
            await asyncio.sleep(0.5)
            assert device.generations == [] and not served.fleet.refresh(issued)[0].ended
    assert len([line for line in served.lines if "director's key" in line]) == 1
    (tmp_path / "director.pem").rename(away)
    async with served.daemon(), served.device():
        await served.until(lambda: served.fleet.refresh(issued)[0].succeeded)


async def test_encrypted_keys_need_the_passphrase(broker: Broker, tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "fleet", "f", broker.url, Passphrases(SECRET)) as fleet:
        fleet.trust.found(Foundation(tmp_path / "root-keys"))
        fleet.publish(make_bundle(tmp_path / "bundle"))
        with pytest.raises(WrongPassphrase, match="does not open"):
            await serve(fleet.directory, print, asyncio.Event(), Passphrases("another one"))
        lines: list[str] = []
        stop = asyncio.Event()
        task = asyncio.create_task(serve(fleet.directory, lines.append, stop))
        async with asyncio.timeout(20):
            while not any("AUTOGLM_EDGE_KEY_PASSPHRASE" in line for line in lines):
                await asyncio.sleep(0.02)
        stop.set()
        await task
        stop = asyncio.Event()
        task = asyncio.create_task(serve(fleet.directory, lines.append, stop, Passphrases(SECRET)))
        root = fleet.trust.root_path.read_bytes()
        async with StandInDevice(broker.url, "f", "dev1", root=root) as device:
            fleet.deploy(TINY, ["dev1"], create=True)
            async with asyncio.timeout(20):
                while not device.generations:
                    await asyncio.sleep(0.02)
        stop.set()
        await task


async def test_a_device_that_trusts_another_fleet_takes_nothing(served: Served, tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "other", "f", served.url) as other:
        other.trust.found(Foundation(tmp_path / "other-root-keys", plain=True))
        stranger = StandInDevice(served.url, "f", "dev1", root=other.trust.root_path.read_bytes())
    async with served.daemon():
        served.fleet.deploy(TINY, ["dev1"], create=True)
        await served.until_said("told to run")
        async with served.device() as device:
            await served.until(lambda: device.generations == [1])
        payload = await retained(served)
        with pytest.raises(ProtocolError, match="not signed by the director"):
            stranger._open(DesiredState, payload)


async def test_what_a_device_turns_away_is_told_to_its_owner_once(served: Served) -> None:
    async with served.daemon(), served.device() as device:
        reason = Reason(code="replayed", message="generation 1 is over\n[bold]")
        device.trust = TrustReport(mode="signed", root_version=1, refusal=reason)
        for _ in range(3):
            await device.report()
        await served.until_said("dev1: turned away what it was sent: generation 1 is over")
        await served.until(lambda: (d := served.fleet.devices()[0].report) and d.sequence == device.sequence)
        assert len([line for line in served.lines if "turned away" in line]) == 1
        lines = [line.plain for line in reasons(served.fleet.status())]
        assert lines == ["dev1: turned away what it was sent: generation 1 is over?[bold] (replayed)"]
        device.trust = TrustReport(mode="insecure")
        await device.report()
        await served.until(lambda: (d := served.fleet.devices()[0].report) and d.sequence == device.sequence)
        assert [line.plain for line in reasons(served.fleet.status())] == ["dev1: checks NO signature"]


async def retained(served: Served) -> bytes:
    from autoglm_edge_protocol.mqtt import BrokerAddress, Link, Message

    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message: Message) -> None:
        got.put_nowait(message.payload)

    link = Link(BrokerAddress.parse(served.url), "listener", {"autoglm/v1/f/dev1/desired": 1}, take)
    await link.start()
    try:
        return await asyncio.wait_for(got.get(), 20)
    finally:
        await link.stop()


async def test_an_override_and_terms_of_probation_travel_signed_and_the_override_is_in_the_log(served: Served) -> None:
    async with served.daemon(), served.device() as device:
        wanted: list[DesiredState] = []
        install = device._install

        async def noting(desired: DesiredState) -> None:
            wanted.append(desired)
            await install(desired)

        device._install = noting  # type: ignore[method-assign]
        terms = ProbationTerms(duration_s=1, shadow=ShadowTerms(rate=0.5))
        served.fleet.deploy(TINY, ["dev1"], create=True, downgrade_reason="1.1 überhitzt", probation=terms)
        await served.until(lambda: wanted)
        assert (wanted[0].allow_downgrade, wanted[0].downgrade_reason) == (True, "1.1 überhitzt")
        assert wanted[0].probation == terms
        assert wanted[0].expires_at is not None and wanted[0].signed_at is not None
        assert wanted[0].expires_at - wanted[0].signed_at == 90 * 86_400
    entry = served.fleet.audit()[-1]
    assert (entry.action, entry.subject) == ("deploy-allowing-downgrade", "dev1")
    assert entry.details["reason"] == "1.1 überhitzt" and "@" in entry.actor
