"""An enrolment that is cut off at each operation on the disk: one certificate in the end, or none and it can go on."""

from __future__ import annotations

import errno
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker
from tests.fakes.claimants import Desk
from tests.faults.disks import FaultyDisk, PowerLost, failing_at, power_lost_at
from tests.faults.points import injected

from autoglm_edge_agent.enrolment.enrol import enrol
from autoglm_edge_agent.enrolment.identity import Identity, IdentityFolder
from autoglm_edge_agent.enrolment.key_wire import KeyOrder, KeyResult
from autoglm_edge_agent.enrolment.key_work import FileKey, carry_out
from autoglm_edge_agent.errors import AgentError
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.mqtt import BrokerAddress, Link, Message
from autoglm_edge_protocol.topics import Channel, Topic, fleet_filters, parse_topic


@pytest.fixture
async def desk(broker: Broker, memory_path: Path) -> AsyncIterator[Desk]:
    """A registrar at a broker."""
    desk = Desk(memory_path / "fleet")

    async def take(message: Message) -> None:
        topic = parse_topic(message.topic)
        reply = desk.registrar.enrol(desk.database, topic.device, message.payload)
        await link.publish(str(Topic("home", reply.to, Channel.ENROLLED)), reply.payload)

    link = Link(BrokerAddress.parse(broker.url), "fleet", fleet_filters("home"), take)
    await link.start()
    await link.wait_connected(20)
    yield desk
    await link.stop()
    desk.close()


async def attempt(claim: Claim, folder: Path, disk: Disk) -> Identity:
    """Enrol with a disk, on which the key is made, too. Raises what stands in the way."""

    async def key(path: Path, order: KeyOrder) -> KeyResult:
        result = carry_out(order, FileKey(path, disk))
        if order.given is None and result.csr is None:
            raise OSError(result.problem)
        return result

    return await enrol(claim, IdentityFolder(folder, disk), lambda _line: None, timeout_s=30, key=key)


@pytest.mark.one_broker
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["power lost", "disk full"])
async def test_it_ends_with_one_certificate_wherever_it_was_cut_off(
    broker: Broker, desk: Desk, memory_path: Path, fault: str
) -> None:
    for at in itertools.count():
        claim = desk.claim().model_copy(update={"broker_url": broker.url})
        folder = memory_path / str(at)
        disk = FaultyDisk(power_lost_at(at) if fault == "power lost" else failing_at(at, errno.ENOSPC))
        try:
            await attempt(claim, folder, disk)
        except (PowerLost, OSError, AgentError):
            injected("enrolment", fault, at)
        else:
            break
        identity = IdentityFolder(folder, Disk()).read()
        identity = identity or await attempt(claim, folder, Disk())
        files = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert files == {"device.key", "device.pem", "fleet-ca.pem", "identity.json"}
        rows = desk.database.read("SELECT pem FROM certificates WHERE claim_id = ?", (claim.claim_id,))
        assert [row[0] for row in rows] == [(folder / "device.pem").read_text()]
        assert (await attempt(claim, folder, Disk())) == identity
    # Folder, key, authority, what is absent, certificate, record.
    assert at > 25
