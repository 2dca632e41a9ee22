from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from autoglm_edge_agent.enrolment.key_work import FileKey
from autoglm_edge_fleet.enrolment.authority import Authority, Revocation
from autoglm_edge_fleet.enrolment.signing_requests import read_request
from autoglm_edge_fleet.errors import EnrolmentError, KeyUnavailable, NoAuthority, WrongPassphrase
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_protocol.durable import Disk

PASSPHRASE = "of the authority"


def made(directory: Path, passphrase: str | None = None) -> Authority:
    authority = Authority(directory, "home", Passphrases(passphrase))
    authority.found(plain=passphrase is None)
    return authority


def test_it_is_made_once_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    authority = made(tmp_path)
    first = authority.fingerprint()
    made(tmp_path)
    assert authority.fingerprint() == first
    assert stat.S_IMODE(authority.key_path.stat().st_mode) == 0o600


def test_its_key_needs_the_passphrase(tmp_path: Path) -> None:
    made(tmp_path, PASSPHRASE)
    assert b"ENCRYPTED" in (tmp_path / "ca" / "fleet-ca.key").read_bytes()
    Authority(tmp_path, "home", Passphrases(PASSPHRASE)).open()
    with pytest.raises(KeyUnavailable, match="is encrypted: set"):
        Authority(tmp_path, "home", Passphrases()).open()
    with pytest.raises(WrongPassphrase):
        Authority(tmp_path, "home", Passphrases("another passphrase")).open()


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    nothing = Authority(tmp_path / "none", "home", Passphrases())
    assert not nothing.is_founded
    with pytest.raises(NoAuthority, match="fleet claim create"):
        nothing.open()
    with pytest.raises(KeyUnavailable, match="no passphrase"):
        nothing.found()
    authority = made(tmp_path)
    other = made(tmp_path / "other")
    authority.key_path.write_bytes(other.key_path.read_bytes())
    with pytest.raises(KeyUnavailable, match="is not the key of"):
        Authority(tmp_path, "home", Passphrases()).open()
    authority.key_path.unlink()
    with pytest.raises(KeyUnavailable, match="cannot be read"):
        Authority(tmp_path, "home", Passphrases()).open()
    authority.certificate_path.write_text("damaged")
    with pytest.raises(EnrolmentError, match="cannot be used"):
        authority.pem()


def test_an_authority_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    authority = made(tmp_path)
    authority.certificate_path.unlink()  # it is written last
    again = made(tmp_path)
    again.open()
    Authority(tmp_path, "home", Passphrases()).open()


def test_a_devices_certificate_opens_no_broker_and_a_brokers_is_no_devices(tmp_path: Path) -> None:
    authority = made(tmp_path)
    key = read_request(FileKey(tmp_path / "device.key", Disk()).request())
    now = time.time()
    device = x509.load_pem_x509_certificate(authority.issue_device("cam-1", key, now).pem.encode())
    broker = x509.load_pem_x509_certificate(authority.issue_server(["broker.example", "10.0.2.2"], now)[0].pem.encode())
    usages = [c.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value for c in (device, broker)]
    assert [list(usage) for usage in usages] == [[ExtendedKeyUsageOID.CLIENT_AUTH], [ExtendedKeyUsageOID.SERVER_AUTH]]
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.2.2"]
    # A broker whose clock is some hours behind ours lets it in all the same.
    assert device.not_valid_before_utc.timestamp() <= now - 12 * 3600


def test_the_list_of_revoked_certificates_lasts_as_long_as_the_authority(tmp_path: Path) -> None:
    authority = made(tmp_path)
    pem = authority.revocations([Revocation("ab12", 1.7e9)], time.time())
    listed = x509.load_pem_x509_crl(pem)
    assert [row.serial_number for row in listed] == [0xAB12]
    assert listed.next_update_utc == authority.certificate().not_valid_after_utc
    key = authority.certificate().public_key()
    assert listed.is_signature_valid(key)  # type: ignore[arg-type]
