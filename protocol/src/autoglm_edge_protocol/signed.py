"""What is signed on the wire: desired states and commands in envelopes, and the way to the metadata that proves them.

The director signs; its keys and threshold are in the root metadata of the repository, which a device is given when it
is provisioned and keeps up to date by the rules of TUF. The catalogue beside an envelope is not signed: it only says
under which digest each metadata file can be fetched now, and what is fetched proves itself.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeVar

from pydantic import Field, StringConstraints, model_validator

from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState
from autoglm_edge_protocol.digests import Sha256
from autoglm_edge_protocol.documents import Document, Part, parse
from autoglm_edge_protocol.envelopes import Envelope, VerifySignature, verified_payload
from autoglm_edge_protocol.errors import UntrustedEnvelope
from autoglm_edge_protocol.limits import LIMITS

S = TypeVar("S", DesiredState, Command)

DIRECTOR_FIELD: Final = "x-autoglm-director"
"""The field of the root metadata's `signed` part that holds a `Director`."""

PAYLOAD_TYPES: Final[dict[type[Document], str]] = {
    DesiredState: "application/vnd.autoglm-edge.desired-state.v1+json",
    Command: "application/vnd.autoglm-edge.command.v1+json",
}

MetadataName = Annotated[
    str,
    StringConstraints(
        pattern=r"^(timestamp|[1-9][0-9]{0,8}\.(root|snapshot|targets|model-[a-z0-9][a-z0-9_-]{0,63}))\.json$"
    ),
]
"""A metadata file of a repository with consistent snapshots: `timestamp.json`, `3.root.json`, `7.model-NAME.json`."""


class MetadataFile(Part):
    """Under which digest a metadata file can be fetched in blocks."""

    sha256: Sha256
    size_bytes: int = Field(ge=1, le=LIMITS.metadata_bytes)


class SignedMessage(Document):
    """What travels on the topics of desired states and of commands."""

    kind: ClassVar[str] = "signed message"

    envelope: Envelope
    catalogue: dict[MetadataName, MetadataFile] = Field(default_factory=dict, max_length=LIMITS.metadata_files)
    """Not signed, and no more than an index: every root, and the rest of what the receiver needs, as it is now."""

    @model_validator(mode="after")
    def _bounded(self) -> SignedMessage:
        if sum(file.size_bytes for file in self.catalogue.values()) > LIMITS.metadata_total_bytes:
            raise ValueError(f"the metadata is larger than {LIMITS.metadata_total_bytes} bytes together")
        return self


class Director(Part):
    """Who may sign desired states and commands: ids of keys that the root metadata has in its `keys`."""

    keyids: tuple[str, ...] = Field(min_length=1, max_length=LIMITS.signatures)
    threshold: int = Field(ge=1, le=LIMITS.signatures)

    @model_validator(mode="after")
    def _reachable(self) -> Director:
        if len(set(self.keyids)) != len(self.keyids):
            raise ValueError("a key is named twice")
        if self.threshold > len(self.keyids):
            raise ValueError("the threshold is above the number of keys")
        return self


def open_signed(model: type[S], message: SignedMessage, director: Director, verify: VerifySignature) -> S:
    """Return what the director has signed. That it is for this device, new and not expired is the caller's to check.

    Raises:
        UntrustedEnvelope: too few valid signatures, another type of payload, or a payload that no director writes:
            without `fleet`, `signed_at` or `expires_at`.
        MalformedDocument, UnsupportedSchema: the payload cannot be understood.
    """
    payload = verified_payload(message.envelope, PAYLOAD_TYPES[model], director.keyids, director.threshold, verify)
    document = parse(model, payload, LIMITS.signed_payload_bytes)
    missing = [name for name in ("fleet", "signed_at", "expires_at") if getattr(document, name) is None]
    if missing:
        raise UntrustedEnvelope("unbound", f"the signed {model.kind} has no {missing[0]}")
    return document
