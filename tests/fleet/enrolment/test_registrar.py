from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.fakes.claimants import Claimant, Desk

from autoglm_edge_agent.enrolment.answers import Issued, Pending, Refused, Worthless
from autoglm_edge_fleet.enrolment import registrar
from autoglm_edge_fleet.enrolment.claims import ClaimTerms
from autoglm_edge_fleet.enrolment.registrar import Registrar
from autoglm_edge_fleet.errors import KeyUnavailable, NotWaiting, RefusedReport, UnknownClaim, UnknownDevice
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.enrolment import RenewalAnswer, RenewalRequest
from autoglm_edge_protocol.errors import MalformedDocument


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "fleet")
    yield desk
    desk.close()


def test_a_board_becomes_a_device_with_its_tags(desk: Desk, tmp_path: Path) -> None:
    answer = desk.answer(Claimant(desk.claim(), tmp_path / "board"))
    assert isinstance(answer, Issued)
    assert (answer.identity.device, answer.identity.fleet) == ("cam-1", "home")
    assert desk.fleet.enrolment.tags() == {"cam-1": {"site": "berlin"}}
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.authority.encode()))
    assert [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["cam-1"]
    claim_id = desk.fleet.enrolment.claims()[0].claim_id
    assert desk.said == [f"cam-1: enrolled with claim {claim_id} (Raspberry Pi 4 (aarch64) abababababab)"]


def test_the_same_board_gets_the_same_answer_as_often_as_it_asks(desk: Desk, tmp_path: Path) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")
    first = desk.answer(board)
    board.new_request()  # as after a loss of power: the key is there, and nothing else
    second = desk.answer(board)
    assert isinstance(first, Issued)
    assert isinstance(second, Issued)
    assert second.certificate == first.certificate
    assert desk.certificates() == [("cam-1", None)]


def test_a_claim_on_a_second_board_is_refused_and_the_owner_sees_it(desk: Desk, tmp_path: Path) -> None:
    claim = desk.claim()
    first, second = Claimant(claim, tmp_path / "first"), Claimant(claim, tmp_path / "second", board="cd" * 16)
    assert isinstance(desk.answer(first), Issued)
    for _ in range(3):
        refused = desk.answer(second)
        assert isinstance(refused, Refused)
        assert refused.code == "claim-used"
    (row,) = desk.fleet.enrolment.claims()
    assert row.contested_board == "Raspberry Pi 4 (aarch64) cdcdcdcdcdcd"
    assert [entry.action for entry in desk.fleet.audit()].count("claim used twice") == 1
    assert any("used by a second board" in line for line in desk.said)
    assert desk.certificates() == [("cam-1", None)]
    assert isinstance(desk.answer(first), Issued)


def test_the_fleets_clock_alone_ends_a_claim(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = desk.claim(expires_s=60.0)
    board, late = Claimant(claim, tmp_path / "board"), Claimant(claim, tmp_path / "late")
    monkeypatch.setattr("time.time", lambda: claim.expires_at + 1)
    refused = desk.answer(late)
    assert isinstance(refused, Refused)
    assert refused.code == "claim-expired"
    monkeypatch.undo()
    assert isinstance(desk.answer(board), Issued)


def test_a_revoked_claim_lets_nobody_in_and_takes_nobody_out(desk: Desk, tmp_path: Path) -> None:
    used, unused = desk.claim(), desk.claim()
    device = Claimant(used, tmp_path / "used")
    desk.answer(device)
    assert desk.fleet.enrolment.revoke_claim(used.claim_id).state == "used"
    assert desk.fleet.enrolment.revoke_claim(unused.claim_id).state == "revoked"
    refused = desk.answer(Claimant(unused, tmp_path / "unused"))
    assert isinstance(refused, Refused)
    assert refused.code == "claim-revoked"
    assert isinstance(desk.answer(device), Issued)
    with pytest.raises(UnknownClaim, match="fleet claim list"):
        desk.fleet.enrolment.revoke_claim("0" * 16)


def test_what_is_to_be_approved_waits_and_is_answered_when_it_is(desk: Desk, tmp_path: Path) -> None:
    board = Claimant(desk.claim(needs_approval=True), tmp_path / "board")
    assert desk.answer(board) == Pending("cam-1")
    assert desk.registrar.approved(desk.database) == ()
    assert desk.certificates() == []
    with pytest.raises(NotWaiting, match="waiting: cam-1"):
        desk.fleet.enrolment.approve("cam-2")
    assert desk.fleet.enrolment.approve("cam-1").state == "approved"
    (reply,) = desk.registrar.approved(desk.database)
    assert reply.to == board.request.request_id
    assert isinstance(board.hears(reply.payload), Issued)
    assert desk.registrar.approved(desk.database) == ()
    assert desk.certificates() == [("cam-1", None)]
    with pytest.raises(NotWaiting, match="nobody does"):
        desk.fleet.enrolment.approve("cam-1")


def test_two_boards_that_want_one_name_get_two(desk: Desk, tmp_path: Path) -> None:
    names = []
    for number in range(2):
        answer = desk.answer(Claimant(desk.claim(), tmp_path / str(number), name="cam"))
        assert isinstance(answer, Issued)
        names.append(answer.identity.device)
    assert names[0] == "cam"
    assert names[1].startswith("cam-")


@pytest.mark.parametrize("name", ["_all", "the.fleet"])
def test_no_board_gets_a_name_that_means_something_else(desk: Desk, tmp_path: Path, name: str) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")
    with pytest.raises(ValueError, match="name"):
        board.new_request(name=name)


def test_who_knows_no_claim_is_told_so_and_believes_it_not(desk: Desk, tmp_path: Path) -> None:
    claim = desk.claim()
    stranger = Claimant(claim.model_copy(update={"claim_id": "0" * 16}), tmp_path / "stranger")
    answer = desk.answer(stranger)
    assert isinstance(answer, Worthless)
    assert "made no such claim" in answer.why
    for _ in range(100):
        desk.answer(stranger)
    assert len(desk.said) == 1  # whoever likes can ask: the owner's log is not his


def test_who_does_not_know_the_secret_gets_nothing(desk: Desk, tmp_path: Path) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")
    reply = desk.registrar.enrol(desk.database, board.request.request_id, board.asks(secret="00" * 32))
    assert isinstance(board.hears(reply.payload), Worthless)
    assert desk.certificates() == []
    assert desk.fleet.enrolment.claims()[0].state == "open"


def test_a_request_that_was_overheard_is_worth_nothing_under_another_name(desk: Desk, tmp_path: Path) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")
    with pytest.raises(RefusedReport, match="under the name of another request"):
        desk.registrar.enrol(desk.database, "enrol-" + "0" * 32, board.asks())
    assert desk.certificates() == []


def test_a_request_for_a_key_that_is_not_the_senders_or_is_weak_is_refused(desk: Desk, tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    board = Claimant(desk.claim(), tmp_path / "board")
    lines = board.request.csr.splitlines()
    damaged = "\n".join([*lines[:-2], lines[-2][:-6] + "AAAA==", lines[-1]])
    csrs = [
        builder.sign(weak, hashes.SHA256()).public_bytes(Encoding.PEM).decode(),
        damaged,
        "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n",
    ]
    for csr in csrs:
        board.new_request(csr=csr)
        refused = desk.answer(board)
        assert isinstance(refused, Refused)
        assert refused.code == "bad-request"
    assert desk.certificates() == []


def test_what_a_request_asks_for_beyond_its_key_counts_for_nothing(desk: Desk, tmp_path: Path) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")
    key = rsa.generate_private_key(65537, 2048)
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the.fleet")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    board.new_request(csr=greedy.public_bytes(Encoding.PEM).decode())
    answer = desk.answer(board)
    assert isinstance(answer, Issued)
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    assert "the.fleet" not in certificate.subject.rfc4514_string()
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"claim_id": "0000000000000000", "request": {}}'])
def test_what_is_no_request_is_refused(desk: Desk, payload: bytes) -> None:
    with pytest.raises(MalformedDocument):
        desk.registrar.enrol(desk.database, "enrol-" + "0" * 32, payload)


def test_a_commit_that_fails_leaves_no_certificate_and_the_board_asks_again(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")

    def full(*_arguments: Any, **_words: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(registrar, "note", full)
    with pytest.raises(Exception, match="disk is full"):
        desk.answer(board)
    assert desk.certificates() == []
    assert desk.fleet.enrolment.claims()[0].state == "open"
    monkeypatch.undo()
    assert isinstance(desk.answer(board), Issued)
    assert desk.certificates() == [("cam-1", None)]


def test_without_the_authoritys_passphrase_nobody_is_answered_and_nothing_is_used_up(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "fleet", passphrase="of the authority")
    board = Claimant(desk.claim(), tmp_path / "board")
    locked = Registrar(desk.directory, desk.fleet.config, Passphrases(), desk.said.append)
    with pytest.raises(KeyUnavailable, match="is encrypted"):
        locked.enrol(desk.database, board.request.request_id, board.asks())
    assert desk.fleet.enrolment.claims()[0].state == "open"
    assert isinstance(desk.answer(board), Issued)
    desk.close()


# devices ----


def renew(desk: Desk, board: Claimant, device: str = "cam-1") -> RenewalAnswer:
    asking = RenewalRequest(device=device, csr=board.key.request())
    reply = desk.registrar.renew(desk.database, device, asking.to_bytes())
    assert reply.to == device
    return parse(RenewalAnswer, reply.payload)


def test_a_device_gets_a_new_certificate_of_its_key_when_it_is_time(desk: Desk, tmp_path: Path) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")
    issued = desk.answer(board)
    assert isinstance(issued, Issued)
    early = renew(desk, board).grant
    assert early is not None
    assert early.certificate == issued.certificate  # too early: the same once more
    with desk.database.transaction() as connection:
        connection.execute("UPDATE certificates SET not_before = not_before - 1e7, not_after = not_after - 1e7")
    renewed = renew(desk, board).grant
    assert renewed is not None
    assert renewed.certificate != issued.certificate
    assert renewed.not_after >= issued.identity.not_after
    again = renew(desk, board).grant
    assert again == renewed  # an answer may get lost
    assert len(desk.certificates()) == 2


def test_nobody_renews_what_is_not_his(desk: Desk, tmp_path: Path) -> None:
    first, second = (Claimant(desk.claim(), tmp_path / name, name=name) for name in ("cam-1", "cam-2"))
    desk.answer(first)
    desk.answer(second)
    answer = renew(desk, first, "cam-2")
    assert answer.refusal is not None
    assert answer.refusal.code == "not-enrolled"
    with pytest.raises(RefusedReport, match="another device"):
        desk.registrar.renew(desk.database, "cam-2", RenewalRequest(device="cam-1", csr=first.key.request()).to_bytes())


def test_a_revoked_device_gets_no_certificate_by_any_way(desk: Desk, tmp_path: Path) -> None:
    board = Claimant(desk.claim(), tmp_path / "board")
    desk.answer(board)
    assert desk.fleet.enrolment.revoke_device("cam-1", "stolen") == 1
    assert renew(desk, board).refusal is not None
    refused = desk.answer(board)
    assert isinstance(refused, Refused)
    assert refused.code == "device-revoked"
    assert desk.fleet.enrolment.revoke_device("cam-1", "once more") == 0
    with pytest.raises(UnknownDevice):
        desk.fleet.enrolment.revoke_device("cam-9", "never there")


def test_another_board_takes_the_place_of_one_and_not_before_it_is_there(desk: Desk, tmp_path: Path) -> None:
    old = Claimant(desk.claim(), tmp_path / "old")
    desk.answer(old)
    replaces = desk.fleet.enrolment.replace_device("cam-1", ClaimTerms(3600.0, {}))
    assert (replaces.name, replaces.tags) == ("cam-1", {"site": "berlin"})
    assert renew(desk, old).grant is not None
    new = Claimant(replaces, tmp_path / "new", name="anything")
    answer = desk.answer(new)
    assert isinstance(answer, Issued)
    assert answer.identity.device == "cam-1"
    assert sorted(reason or "" for _, reason in desk.certificates()) == ["", f"replaced with claim {replaces.claim_id}"]
    assert renew(desk, old).refusal is not None
    assert renew(desk, new).grant is not None
