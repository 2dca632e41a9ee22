"""What an answer to a request for a certificate means: pure, over the claim, the request and the bytes that came."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from autoglm_edge_agent.enrolment.identity import Identity
from autoglm_edge_protocol.claims import Claim, open_proven
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.enrolment import CertificateAnswer, CertificateRequest, EnrolmentAnswer
from autoglm_edge_protocol.errors import ProtocolError


@dataclass(frozen=True)
class Issued:
    """The board is a device now."""

    identity: Identity
    certificate: str
    authority: str
    broker_ca: str | None


@dataclass(frozen=True)
class Pending:
    """An operator has to approve it."""

    name: str
    """Under which it waits."""


@dataclass(frozen=True)
class Refused:
    """The fleet says no, and proves that it is the fleet: asking again changes nothing."""

    code: str
    message: str


@dataclass(frozen=True)
class Worthless:
    """Nothing that could be believed: asking goes on."""

    why: str


Meaning = Issued | Pending | Refused | Worthless


def meaning_of(payload: bytes, claim: Claim, request: CertificateRequest) -> Meaning:
    """Return what an answer says."""
    try:
        said = parse(EnrolmentAnswer, payload)
        if said.answer is None:
            assert said.refusal is not None
            return Worthless(f"somebody says, and does not prove to be the fleet: {said.refusal.message}")
        answer = open_proven(CertificateAnswer, said.answer, claim.secret)
    except ProtocolError as error:
        return Worthless(str(error))
    if answer.fleet != claim.fleet or answer.request_sha256 != sha256_of(request.to_bytes()):
        return Worthless("an answer to another request")
    if answer.status == "pending":
        return Pending(answer.device or request.name)
    if answer.status == "refused":
        assert answer.reason is not None
        return Refused(answer.reason.code, answer.reason.message)
    return _issued(answer, claim, request)


def _issued(answer: CertificateAnswer, claim: Claim, request: CertificateRequest) -> Issued | Worthless:
    assert answer.device and answer.grant and answer.authority and answer.broker_url
    if _fingerprint(answer.authority) != claim.fleet_ca_sha256:
        return Worthless("the authority is not the one whose fingerprint the claim has")
    own_broker = claim.device_broker_url is None
    identity = Identity(
        fleet=claim.fleet,
        device=answer.device,
        broker_url=answer.broker_url if claim.device_broker_url is None else claim.device_broker_url,
        client_id=client_id(answer.device, request.request_id),
        claim_id=claim.claim_id,
        issued_at=max(answer.at, claim.created_at),
        not_before=answer.grant.not_before,
        not_after=answer.grant.not_after,
    )
    return Issued(
        identity, answer.grant.certificate, answer.authority, answer.broker_ca if own_broker else claim.broker_ca
    )


def client_id(device: str, request_id: str) -> str:
    """Return the name under which the device connects: as hard to guess as the request's."""
    return f"autoglm-{device[:64]}-{sha256_of(request_id.encode())[:24]}"


def _fingerprint(pem: str) -> str | None:
    try:
        return sha256_of(ssl.PEM_cert_to_DER_cert(pem.strip() + "\n"))
    except ValueError:  # none, or several
        return None
