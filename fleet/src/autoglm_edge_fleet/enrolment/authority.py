"""The fleet's own certificate authority: `ca/fleet-ca.pem`, its key beside it, and what it signs (X.509, RFC 5280).

Keys are of the curve P-256, which every broker and every TLS library of a small board knows. It knows no database:
what was issued and revoked is kept by `certificates`.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from autoglm_edge_fleet.enrolment.signing_requests import PublicKey, SignedKey, key_digest
from autoglm_edge_fleet.errors import EnrolmentError, KeyUnavailable, NoAuthority, WrongPassphrase
from autoglm_edge_fleet.keys import KEYS_FOLDER
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, Passphrases
from autoglm_edge_fleet.pkcs8 import from_pem, is_encrypted, to_pem
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk

FOLDER = "ca"
CERTIFICATE_FILE = "fleet-ca.pem"
_KEY_FILE = "fleet-ca.key"

CLOCK_SLACK = datetime.timedelta(days=1)
"""Certificates begin so long before they are made: brokers and boards have clocks of their own."""
AUTHORITY_LIFE = datetime.timedelta(days=20 * 365)
DEVICE_LIFE = datetime.timedelta(days=365)
SERVER_LIFE = datetime.timedelta(days=5 * 365)


@dataclass(frozen=True)
class Certificate:
    """What was issued."""

    serial: str
    """Hexadecimal."""
    key_sha256: str
    pem: str
    not_before: float
    not_after: float
    """Unix times in seconds."""


@dataclass(frozen=True)
class Revocation:
    """A certificate that is worth nothing any more."""

    serial: str
    revoked_at: float


class Authority:
    """The authority of the fleet in `directory`. Its key is opened when something is signed."""

    def __init__(self, directory: Path, fleet: str, passphrases: Passphrases, disk: Disk | None = None) -> None:
        self._folder = directory / FOLDER
        self._fleet = fleet
        self._passphrases = passphrases
        self._purpose = f"the keys in {directory / KEYS_FOLDER}"  # one passphrase for all that a fleet uses day by day
        self._disk = disk or Disk()
        self._opened: ec.EllipticCurvePrivateKey | None = None

    @property
    def certificate_path(self) -> Path:
        """Where the certificate is: what brokers are given."""
        return self._folder / CERTIFICATE_FILE

    @property
    def key_path(self) -> Path:
        """Where the key is."""
        return self._folder / _KEY_FILE

    @property
    def is_founded(self) -> bool:
        """Whether there is one: its certificate is written last."""
        return self.certificate_path.is_file()

    def found(self, plain: bool = False) -> None:
        """Make key and certificate, unless there are some; `plain`: the key is not encrypted.

        Raises KeyUnavailable, OSError.
        """
        if self.is_founded:
            return
        passphrase = None if plain else self._passphrases.new(self._purpose)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{self._fleet} fleet authority")
        now = _now()
        certificate = (
            _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self._disk.make_directories(self._folder)
        self._disk.commit_private(self.key_path, to_pem(key, passphrase))
        self._disk.commit(self.certificate_path, certificate.public_bytes(Encoding.PEM))
        self._opened = key

    def certificate(self) -> x509.Certificate:
        """Return the certificate. Raises NoAuthority, EnrolmentError."""
        try:
            return x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
        except FileNotFoundError:
            raise NoAuthority(
                "this fleet has no authority for certificates yet: `autoglm-edge fleet claim create` makes it"
            ) from None
        except (OSError, ValueError) as error:
            raise EnrolmentError(f"{self.certificate_path} cannot be used: {error}") from None

    def pem(self) -> str:
        """Return the certificate as it is given out. Raises NoAuthority, EnrolmentError."""
        return self.certificate().public_bytes(Encoding.PEM).decode()

    def fingerprint(self) -> str:
        """Return the SHA-256 of the certificate, which claims carry. Raises NoAuthority, EnrolmentError."""
        return sha256_of(self.certificate().public_bytes(Encoding.DER))

    def open(self) -> None:
        """Open the key now. Raises NoAuthority, KeyUnavailable, WrongPassphrase."""
        self._key()

    def _key(self) -> ec.EllipticCurvePrivateKey:
        if self._opened is None:
            certificate = self.certificate()
            key = self._read_key()
            if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
                raise KeyUnavailable(f"{self.key_path} is not the key of {self.certificate_path}")
            self._opened = key
        return self._opened

    def _read_key(self) -> object:
        try:
            pem = self.key_path.read_bytes()
        except OSError as error:
            raise KeyUnavailable(f"the authority's key {self.key_path} cannot be read: {error.strerror}") from None
        passphrase = None
        if is_encrypted(pem) and (passphrase := self._passphrases.get(self._purpose)) is None:
            raise KeyUnavailable(
                f"the authority's key {self.key_path} is encrypted: set {PASSPHRASE_VARIABLE} or use --passphrase-file"
            )
        try:
            return from_pem(pem, passphrase)
        except ValueError:
            raise WrongPassphrase(f"the passphrase does not open {self.key_path}, or the file is damaged") from None

    # what it signs ----

    def issue_device(self, device: str, key: SignedKey, now: float) -> Certificate:
        """Return a certificate by which brokers know a device. Raises NoAuthority, KeyUnavailable, WrongPassphrase."""
        subject = _name(device, key.sha256)
        return self._issue(subject, key.public_key, ExtendedKeyUsageOID.CLIENT_AUTH, (), now, DEVICE_LIFE)

    def issue_server(self, hosts: Collection[str], now: float, kept: bytes | None = None) -> tuple[Certificate, bytes]:
        """Return a certificate by which devices know a broker, and its key in PEM: the one that was `kept`.

        Raises as `issue_device`.
        """
        key = _kept_or_new(kept, "broker's key")
        names = [_alternative(host) for host in hosts]
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        return self._issue(_name("broker"), key.public_key(), usage, names, now, SERVER_LIFE), to_pem(key, None)

    def issue_client(self, user: str, now: float, kept: bytes | None = None) -> tuple[Certificate, bytes]:
        """Return a certificate by which brokers know the fleet itself, and its key in PEM: the one that was `kept`.

        Raises as `issue_device`.
        """
        key = _kept_or_new(kept, "fleet's key for the broker")
        made = self._issue(_name(user), key.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH, (), now, SERVER_LIFE)
        return made, to_pem(key, None)

    def revocations(self, revoked: Iterable[Revocation], now: float) -> bytes:
        """Return the list of what is revoked (CRL, PEM). Raises as `issue_device`."""
        certificate, key = self.certificate(), self._key()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(_at(now) - CLOCK_SLACK)
            # A broker whose list has run out lets nobody in: it is valid as long as the authority.
            .next_update(certificate.not_valid_after_utc)
        )
        for each in revoked:
            row = x509.RevokedCertificateBuilder().serial_number(int(each.serial, 16))
            builder = builder.add_revoked_certificate(row.revocation_date(_at(each.revoked_at)).build())
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _issue(
        self,
        subject: x509.Name,
        public_key: PublicKey,
        usage: x509.ObjectIdentifier,
        names: Collection[x509.GeneralName],
        now: float,
        life: datetime.timedelta,
    ) -> Certificate:
        authority, key = self.certificate(), self._key()
        builder = (
            _builder(subject, authority.subject, public_key, _at(now), life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(key, hashes.SHA256())
        return Certificate(
            serial=f"{made.serial_number:x}",
            key_sha256=key_digest(public_key),
            pem=made.public_bytes(Encoding.PEM).decode(),
            not_before=made.not_valid_before_utc.timestamp(),
            not_after=made.not_valid_after_utc.timestamp(),
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime.datetime, life: datetime.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + life)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def serial_number(key_sha256: str) -> str:
    """Return what a device's subject has beside its name: a board and the one that replaces it have the same name."""
    return key_sha256[:32]


def _kept_or_new(kept: bytes | None, name: str) -> ec.EllipticCurvePrivateKey:
    if kept is None:
        return ec.generate_private_key(ec.SECP256R1())
    try:
        key = from_pem(kept, None)
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyUnavailable(f"the {name} is damaged: remove it, then another is made")
    return key


def _name(common_name: str, key_sha256: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])]
    if key_sha256 is not None:
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number(key_sha256)))
    return x509.Name(attributes)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
