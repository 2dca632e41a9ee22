"""The parsers that enrolment rests on: what boards without an identity send, what is answered, what is kept.

Each is given bytes where somebody without any right could put them, and the rest is whole.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.fakes.claimants import Claimant, Desk

from autoglm_edge_agent.enrolment.identity import Identity, IdentityFolder
from autoglm_edge_agent.enrolment.key_wire import Given, KeyOrder
from autoglm_edge_agent.enrolment.key_work import FileKey, carry_out
from autoglm_edge_fleet.broker_access.folder import BrokerFolder
from autoglm_edge_fleet.broker_access.plan import BrokerSettings
from autoglm_edge_fleet.enrolment.signing_requests import read_request
from autoglm_edge_protocol.claims import prove
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.enrolment import EnrolmentRequest, RenewalRequest
from autoglm_edge_protocol.limits import LIMITS

_FOLDER = tempfile.TemporaryDirectory()


@dataclass(frozen=True)
class Scene:
    """A fleet with one device, which has asked and was answered."""

    desk: Desk
    device: Claimant
    answer: bytes


@cache
def scene() -> Scene:
    desk = Desk(Path(_FOLDER.name) / "fleet")
    device = Claimant(desk.claim(), Path(_FOLDER.name) / "device")
    reply = desk.registrar.enrol(desk.database, device.request.request_id, device.asks())
    return Scene(desk, device, reply.payload)


def request(data: bytes) -> object:
    """What the registrar is sent on the listener that is open to all. Raises RefusedReport."""
    desk = scene().desk
    return desk.registrar.enrol(desk.database, scene().device.request.request_id, data)


def proven_request(data: bytes) -> object:
    """The same of somebody who has a claim."""
    desk, device = scene().desk, scene().device
    sent = parse(EnrolmentRequest, device.asks())
    csr = data[: LIMITS.signing_request_bytes].decode("utf-8", "replace")
    proven = prove(device.request.model_copy(update={"csr": csr}), device.claim.secret)
    return desk.registrar.enrol(
        desk.database, device.request.request_id, sent.model_copy(update={"request": proven}).to_bytes()
    )


def signing_request(data: bytes) -> object:
    """A request for a certificate. Raises BadRequest."""
    return read_request(data.decode("utf-8", "replace"))


def renewal(data: bytes) -> object:
    """What a device sends. Raises RefusedReport."""
    return scene().desk.registrar.renew(scene().desk.database, "cam-1", data)


def renewal_request() -> bytes:
    return RenewalRequest(device="cam-1", csr=scene().device.key.request()).to_bytes()


def answer(data: bytes) -> object:
    """What a board is sent by whomever."""
    return scene().device.hears(data)


def certificate(data: bytes) -> object:
    """What the key process is given to look at. Raises nothing: what is wrong is its result."""
    text = data.decode("utf-8", "replace")
    given = Given.model_construct(certificate=text, authority=text, device="cam-1")
    return carry_out(KeyOrder.model_construct(given=given), scene().device.key)


def key(path: Path) -> object:
    return carry_out(KeyOrder(), FileKey(path, Disk()))


def identity(path: Path) -> Identity | None:
    """Raises StateError."""
    return IdentityFolder(path.parent, Disk()).read()


def broker_settings(path: Path) -> BrokerSettings | None:
    """Raises BadSettings."""
    desk = scene().desk
    return BrokerFolder(path.parent, "home", desk.database, desk.fleet.enrolment.authority).settings()


IDENTITY = Identity(
    fleet="home",
    device="cam-1",
    broker_url="mqtts://broker.example",
    client_id="autoglm-cam-1-0123",
    claim_id="b95f82062fa332f4",
    issued_at=1.0,
    not_before=1.0,
    not_after=2.0,
).to_bytes()
BROKER_SETTINGS = BrokerSettings(
    broker="nats", hosts=("a",), port=1, enrolment_port=2, secret="x", folder="/x", place="/x", reload=("true",)
).to_bytes()
