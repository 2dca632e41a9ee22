"""Reading a request for a certificate (PKCS#10, RFC 2986): whose key it is, and that its sender has it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from autoglm_edge_fleet.errors import EnrolmentError
from autoglm_edge_protocol.digests import sha256_of

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class BadRequest(EnrolmentError):
    """A request for a certificate that no certificate is given for."""


@dataclass(frozen=True)
class SignedKey:
    """A request whose signature shows that its sender has the key."""

    public_key: PublicKey
    sha256: str
    """Of the SubjectPublicKeyInfo (DER)."""


def read_request(pem: str) -> SignedKey:
    """Return the key of a request for a certificate that its own key has signed. Raises BadRequest.

    What else it asks for counts for nothing: name, extensions and lifetime are the authority's to say.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        proven = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise BadRequest(f"the request for a certificate cannot be read: {str(error).splitlines()[0]}") from None
    if not proven:
        raise BadRequest("the request for a certificate is not signed by its own key")
    strong_rsa = isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192
    strong_ec = isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256
    if not (strong_rsa or strong_ec or isinstance(key, ed25519.Ed25519PublicKey)):
        raise BadRequest(
            "the key is of no kind that is accepted: EC of 256 bits, Ed25519, or RSA of 2048 bits at least"
        )
    assert isinstance(key, PublicKey)
    return SignedKey(key, key_digest(key))


def key_digest(key: PublicKey) -> str:
    """Return what tells a key from all others."""
    return sha256_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
