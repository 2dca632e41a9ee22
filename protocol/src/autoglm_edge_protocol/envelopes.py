"""Signed bytes: DSSE v1 envelopes (https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md of v1.0).

Pure. What a signature covers is the payload's type and its bytes (`pre_authentication_encoding`), never a canonical
form of JSON. Whose keys count and how a signature is checked is the caller's: no cryptography is imported here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from itertools import islice
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from autoglm_edge_protocol import strict_base64
from autoglm_edge_protocol.documents import Part
from autoglm_edge_protocol.errors import UntrustedEnvelope
from autoglm_edge_protocol.limits import LIMITS

VerifySignature = Callable[[str, bytes, bytes], bool]
"""(id of the key, signature, signed bytes) -> whether that key has made that signature. Unknown keys: False."""

_TO_STANDARD = str.maketrans("-_", "+/")


def decoded(text: str) -> bytes:
    """Return what the text is the Base64 of, standard or URL-safe as the specification wants. Raises ValueError."""
    return strict_base64.decode(text.translate(_TO_STANDARD))


def _check_base64(text: str) -> str:
    decoded(text)
    return text


Base64 = Annotated[str, AfterValidator(_check_base64)]


class Signature(Part):
    """One signature, and a hint at the key that made it: the hint itself is not signed."""

    keyid: str = Field(default="", max_length=128)
    sig: Base64 = Field(min_length=1, max_length=LIMITS.signature_base64_bytes)


class Envelope(Part):
    """A payload with its type and its signatures, none of them checked."""

    payloadType: str = Field(min_length=1, max_length=256)  # noqa: N815  the name is the specification's
    payload: Base64 = Field(default="", max_length=LIMITS.signed_payload_bytes // 3 * 4)
    signatures: tuple[Signature, ...] = Field(min_length=1, max_length=LIMITS.signatures)

    @model_validator(mode="after")
    def _each_key_once(self) -> Envelope:
        keyids = [signature.keyid for signature in self.signatures if signature.keyid]
        if len(set(keyids)) != len(keyids):
            raise ValueError("one key has signed twice")
        return self

    @property
    def unverified_payload(self) -> bytes:
        """The payload, which anybody may have written."""
        return decoded(self.payload)

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures cover."""
        return pre_authentication_encoding(self.payloadType, self.unverified_payload)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: `DSSEv1 LENGTH TYPE LENGTH PAYLOAD`, lengths in bytes (DSSE protocol.md, PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, sign: Collection[tuple[str, Callable[[bytes], bytes]]]) -> Envelope:
    """Return an envelope signed by each (id of a key, function that signs). Raises ValueError beyond the limits."""
    to_sign = pre_authentication_encoding(payload_type, payload)
    signatures = tuple(Signature(keyid=keyid, sig=base64.b64encode(by(to_sign)).decode()) for keyid, by in sign)
    return Envelope(payloadType=payload_type, payload=base64.b64encode(payload).decode(), signatures=signatures)


def verified_payload(
    envelope: Envelope, payload_type: str, keyids: Collection[str], threshold: int, verify: VerifySignature
) -> bytes:
    """Return the payload once at least `threshold` of the keys have signed it as being of that type.

    Keys are counted by their ids, so no two ids may be of one key. The id in a signature narrows which key is tried,
    and proves nothing; without one all are tried. Raises UntrustedEnvelope.
    """
    if envelope.payloadType != payload_type:
        raise UntrustedEnvelope("wrong-type", f"it is a {envelope.payloadType!r}, not a {payload_type!r}")
    if threshold < 1:
        raise UntrustedEnvelope("no-threshold", "no number of signatures is asked for")
    signed, accepted = envelope.signed_bytes, set[str]()
    for each in envelope.signatures:
        candidates = [keyid for keyid in keyids if each.keyid in ("", keyid) and keyid not in accepted]
        accepted |= set(islice((keyid for keyid in candidates if verify(keyid, decoded(each.sig), signed)), 1))
    if len(accepted) < threshold:
        raise UntrustedEnvelope("bad-signature", f"{len(accepted)} of {threshold} needed signatures are good")
    return envelope.unverified_payload
