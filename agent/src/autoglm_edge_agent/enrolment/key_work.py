"""`python -m autoglm_edge_agent.enrolment.key_work KEYFILE`: makes the device's key, signs a request, checks an answer.

The only process that loads cryptography for enrolment and renewal; it reads one `KeyOrder` and writes one `KeyResult`.

`DeviceKey` is the seam for keys that are not in a file: a TPM or a PKCS#11 token signs the request itself and says what
its public key is. For the TLS connection OpenSSL reads `device.key`: a file of the form `TSS2 PRIVATE KEY` or a
`pkcs11:` URI in PEM, where its provider for that is installed, stands for a key that nobody reads (docs/enrolment.md).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from autoglm_edge_agent.enrolment.key_wire import Given, KeyOrder, KeyResult
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk


class DeviceKey(Protocol):
    """A key that proves who the device is."""

    def request(self) -> str:
        """Return a request for a certificate (PKCS#10, PEM) that the key has signed; made now if there is none.

        Raises ValueError, TypeError, OSError.
        """
        ...

    def public(self) -> bytes:
        """Return its public half (SubjectPublicKeyInfo, DER). Raises ValueError, TypeError, OSError."""
        ...


class FileKey:
    """A key of the curve P-256 in a file that its owner alone may read."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk

    def request(self) -> str:
        """Return a request; its subject says nothing, as the fleet decides the name."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        return builder.sign(self._key(), hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def public(self) -> bytes:
        """Return its public half."""
        return self._key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def _key(self) -> ec.EllipticCurvePrivateKey:
        try:
            pem = self._path.read_bytes()
        except FileNotFoundError:
            return self._make()
        key = load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self._path} holds a key of another kind than is made here")
        return key

    def _make(self) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._disk.commit_private(self._path, pem)
        return key


def carry_out(order: KeyOrder, key: DeviceKey) -> KeyResult:
    """Do what is asked."""
    try:
        if order.given is None:
            return KeyResult(csr=key.request())
        return KeyResult(problem=problem_of(order.given, key))
    except (OSError, ValueError, TypeError) as error:
        return KeyResult(problem=f"the device's key cannot be used: {error}"[:500])


def problem_of(given: Given, key: DeviceKey) -> str | None:
    """Return what is wrong with a certificate that was given to us; None: nothing."""
    try:
        certificate = x509.load_pem_x509_certificate(given.certificate.encode())
        authority = x509.load_pem_x509_certificate(given.authority.encode())
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return "the certificate was not signed by the fleet's authority"
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public != key.public():
        return "the certificate is of another key"
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [given.device]:
        return "the certificate is of another device"
    return None


def main() -> None:
    """Do what standard input asks."""
    order = parse(KeyOrder, sys.stdin.buffer.read())
    sys.stdout.buffer.write(carry_out(order, FileKey(Path(sys.argv[1]), Disk())).to_bytes())


if __name__ == "__main__":
    main()
