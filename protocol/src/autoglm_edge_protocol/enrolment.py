"""How a board becomes a device, and how a device stays one: requests for certificates, and their answers.

A board without an identity asks with a claim, under a name that it makes up for the purpose and that stands in the
place of the device in its topics. A device asks for a new certificate over its own connection, and proves by the
request's signature that it has the key of the one it has.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from autoglm_edge_protocol.claims import BrokerUrl, Certificates, ClaimId, Proven
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.digests import Sha256
from autoglm_edge_protocol.documents import Document, Part
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import BoardId, DeviceName, FleetName

RequestId = Annotated[str, StringConstraints(pattern=r"^enrol-[0-9a-f]{32}$")]
"""Made up by who asks, too long to be guessed: it is the client id and a level of the topics, and whoever knows it
could take the connection over."""


SigningRequest = Annotated[
    str, StringConstraints(max_length=LIMITS.signing_request_bytes, pattern=r"^-----BEGIN CERTIFICATE REQUEST-----")
]
"""PKCS#10 (RFC 2986) in PEM, signed by the key that the certificate is to be of."""


class Board(Part):
    """The board that asks."""

    board_id: BoardId | None = None
    """None: it has nothing that tells it from others of its kind."""
    model: str = Field(max_length=200)
    architecture: str = Field(max_length=64)


class CertificateRequest(Document):
    """What a claim's holder asks for."""

    kind: ClassVar[str] = "certificate request"

    fleet: FleetName
    request_id: RequestId
    csr: SigningRequest
    name: DeviceName
    """What it would like to be called; the fleet decides."""
    board: Board


class EnrolmentRequest(Document):
    """A certificate request with the claim's proof."""

    kind: ClassVar[str] = "enrolment request"

    claim_id: ClaimId
    request: Proven
    """Of a `CertificateRequest`."""


class Grant(Part):
    """A certificate, and until when."""

    certificate: Certificates
    not_before: float = Field(ge=0)
    not_after: float = Field(ge=0)
    """Unix times in seconds."""


class CertificateAnswer(Document):
    """What the fleet answers to a claim's holder."""

    kind: ClassVar[str] = "certificate answer"

    fleet: FleetName
    request_sha256: Sha256
    """Of the request's payload: an answer to another one proves nothing."""
    at: float = Field(ge=0)
    """Unix time in seconds by the fleet's clock."""
    status: Literal["issued", "pending", "refused"]
    """`pending`: an operator has to approve it; the answer comes again when it is decided."""
    reason: Reason | None = None
    """Why it is refused."""
    device: DeviceName | None = None
    """The name that it has now, or under which it waits."""
    grant: Grant | None = None
    authority: Certificates | None = None
    """The fleet's own certificate, whose digest the claim has."""
    broker_url: BrokerUrl | None = None
    """Where devices belong."""
    broker_ca: Certificates | None = None
    """Whom to believe about that broker's name."""

    @model_validator(mode="after")
    def _whole(self) -> CertificateAnswer:
        if self.status == "issued" and None in (self.device, self.grant, self.authority, self.broker_url):
            raise ValueError("what is issued comes with device, grant, authority and broker_url")
        if (self.status == "refused") != (self.reason is not None):
            raise ValueError("a refusal has a reason, and nothing else has")
        return self


class EnrolmentAnswer(Document):
    """An answer with the claim's proof; where the fleet does not know the claim, a refusal that proves nothing."""

    kind: ClassVar[str] = "enrolment answer"

    answer: Proven | None = None
    """Of a `CertificateAnswer`."""
    refusal: Reason | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> EnrolmentAnswer:
        if (self.answer is None) == (self.refusal is None):
            raise ValueError("it has an answer or a refusal")
        return self


class RenewalRequest(Document):
    """A device asks for a new certificate of the key that it has."""

    kind: ClassVar[str] = "renewal request"

    device: DeviceName
    csr: SigningRequest


class RenewalAnswer(Document):
    """The new certificate, or why there is none."""

    kind: ClassVar[str] = "renewal answer"

    device: DeviceName
    grant: Grant | None = None
    refusal: Reason | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> RenewalAnswer:
        if (self.grant is None) == (self.refusal is None):
            raise ValueError("it has a grant or a refusal")
        return self
