"""A claim: the right of one board, once, to become a device of a fleet; and what a claim's secret proves.

A claim is one self-contained file. Its secret never crosses the wire: who asks proves with it that the request is of
the claim's holder, and who answers that the answer is of the fleet that made the claim, so that no broker can let a
board in, nor take one over. What is proven is the payload's type and its bytes (`pre_authentication_encoding`), as
with the director's signatures.
"""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256
from typing import Annotated, ClassVar, Final, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from autoglm_edge_protocol.address import BrokerAddress
from autoglm_edge_protocol.digests import Sha256
from autoglm_edge_protocol.documents import Document, Part, parse
from autoglm_edge_protocol.envelopes import Base64, decoded, pre_authentication_encoding
from autoglm_edge_protocol.errors import MalformedDocument, UnprovenMessage
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import DeviceName, FleetName

D = TypeVar("D", bound=Document)

CLAIM_FILE: Final = "claim.json"

ClaimId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Secret = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""32 random bytes."""
TagName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
TagValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
NamePrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,39}$")]


def _check_certificates(text: str) -> str:
    if not text.lstrip().startswith("-----BEGIN CERTIFICATE-----") or "PRIVATE KEY" in text:
        raise ValueError("no certificate in PEM")
    return text


def _check_address(text: str) -> str:
    try:
        BrokerAddress.parse(text)
    except MalformedDocument as error:
        raise ValueError(error.problem) from None
    return text


Certificates = Annotated[
    str, StringConstraints(max_length=LIMITS.certificates_bytes), AfterValidator(_check_certificates)
]
"""One or more certificates in PEM, and no private key."""
BrokerUrl = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_check_address)]


class Claim(Document):
    """What a board is given. Whoever has it can become a device of the fleet, once."""

    kind: ClassVar[str] = "claim"

    fleet: FleetName
    claim_id: ClaimId
    secret: Secret = Field(repr=False)
    created_at: float = Field(ge=0)
    """Unix time in seconds by the fleet's clock: no board that reads this lives before it."""
    expires_at: float = Field(ge=0)
    """Judged by the fleet's clock alone."""
    tags: dict[TagName, TagValue] = Field(default_factory=dict, max_length=32)
    broker_url: BrokerUrl
    """Where to ask."""
    broker_ca: Certificates | None = None
    """Whom to believe about that broker's name, and about that of `device_broker_url`; None: whom the system
    believes."""
    device_broker_url: BrokerUrl | None = None
    """Where the device belongs afterwards; None: as the fleet's answer says."""
    fleet_ca_sha256: Sha256
    """SHA-256 of the certificate (DER) of the fleet's authority."""
    root: str | None = Field(default=None, max_length=LIMITS.metadata_bytes)
    """Root metadata of the fleet's repository, the text of the file; None: it has none, and signs nothing."""
    name_prefix: NamePrefix | None = None
    """What the device would like its name to begin with."""
    name: DeviceName | None = None
    """The name that the device will have, where it replaces a board."""


def read_claim(data: bytes) -> Claim:
    """Read a claim. Raises MalformedDocument, UnsupportedSchema."""
    return parse(Claim, data, LIMITS.claim_bytes)


class Proven(Part):
    """Bytes, and the proof that they are of somebody who knows a claim's secret."""

    payload: Base64 = Field(min_length=1, max_length=LIMITS.enrolment_base64_bytes)
    proof: Sha256
    """HMAC-SHA256 (RFC 2104) with the secret's 32 bytes over DSSE's pre-authentication encoding of type and payload."""

    @property
    def unproven_payload(self) -> bytes:
        """The payload, which anybody may have written."""
        return decoded(self.payload)


def payload_type(model: type[Document]) -> str:
    """Return what a proof covers besides the payload, so that no document passes for one of another kind."""
    return f"application/vnd.autoglm-edge.{model.kind.replace(' ', '-')}.v1+json"


def prove(document: Document, secret: str) -> Proven:
    """Return a document with the proof that a secret's holder has written it."""
    payload = document.to_bytes()
    return Proven(payload=base64.b64encode(payload).decode(), proof=_proof(type(document), payload, secret))


def open_proven(model: type[D], proven: Proven, secret: str) -> D:
    """Return the document once it is proven. Raises UnprovenMessage, MalformedDocument, UnsupportedSchema."""
    payload = proven.unproven_payload
    if not hmac.compare_digest(_proof(model, payload, secret), proven.proof):
        raise UnprovenMessage(f"the {model.kind} is not of a holder of the claim's secret")
    return parse(model, payload)


def _proof(model: type[Document], payload: bytes, secret: str) -> str:
    encoded = pre_authentication_encoding(payload_type(model), payload)
    return hmac.new(bytes.fromhex(secret), encoded, sha256).hexdigest()
