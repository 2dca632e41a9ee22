from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.claimants import Claimant, Desk

from autoglm_edge_agent.enrolment.answers import Issued, Worthless, meaning_of
from autoglm_edge_protocol.claims import open_proven, prove
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.enrolment import CertificateAnswer, EnrolmentAnswer


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "fleet")
    yield desk
    desk.close()


@pytest.fixture
def board(desk: Desk, tmp_path: Path) -> Claimant:
    return Claimant(desk.claim(), tmp_path / "board")


@pytest.fixture
def answer(desk: Desk, board: Claimant) -> CertificateAnswer:
    """What the fleet answers, opened."""
    reply = desk.registrar.enrol(desk.database, board.request.request_id, board.asks())
    said = parse(EnrolmentAnswer, reply.payload)
    assert said.answer is not None
    return open_proven(CertificateAnswer, said.answer, board.claim.secret)


def sealed(answer: CertificateAnswer, secret: str) -> bytes:
    return EnrolmentAnswer(answer=prove(answer, secret)).to_bytes()


def test_an_answer_of_the_fleet_makes_an_identity(board: Claimant, answer: CertificateAnswer) -> None:
    meaning = board.hears(sealed(answer, board.claim.secret))
    assert isinstance(meaning, Issued)
    identity = meaning.identity
    assert (identity.fleet, identity.device, identity.claim_id) == ("home", "cam-1", board.claim.claim_id)
    assert identity.issued_at == answer.at
    assert len(identity.client_id) >= len("autoglm-cam-1-") + 24


def test_a_claim_says_where_the_device_belongs_when_it_does(board: Claimant, answer: CertificateAnswer) -> None:
    payload = sealed(answer, board.claim.secret)
    elsewhere = board.claim.model_copy(update={"device_broker_url": "mqtts://10.0.2.2:8883"})
    meanings = [meaning_of(payload, claim, board.request) for claim in (board.claim, elsewhere)]
    urls = [meaning.identity.broker_url for meaning in meanings if isinstance(meaning, Issued)]
    assert urls == ["mqtt://127.0.0.1:1883", "mqtts://10.0.2.2:8883"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fleet": "another"}, "another request"),
        ({"request_sha256": "00" * 32}, "another request"),
        ({"authority": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"}, "fingerprint"),
    ],
)
def test_what_does_not_fit_is_worth_nothing_although_it_is_proven(
    board: Claimant, answer: CertificateAnswer, changes: dict[str, str], why: str
) -> None:
    meaning = board.hears(sealed(answer.model_copy(update=changes), board.claim.secret))
    assert isinstance(meaning, Worthless)
    assert why in meaning.why


def test_an_authority_of_somebody_else_is_not_taken(board: Claimant, answer: CertificateAnswer, tmp_path: Path) -> None:
    """A broker that knew the secret, as one that has seen the card, still has not got the fleet's key."""
    other = Desk(tmp_path / "other")
    changed = answer.model_copy(update={"authority": other.fleet.enrolment.authority.pem()})
    other.close()
    assert isinstance(board.hears(sealed(changed, board.claim.secret)), Worthless)


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b'{"answer": null, "refusal": null}'])
def test_what_is_no_answer_is_worth_nothing(board: Claimant, payload: bytes) -> None:
    assert isinstance(board.hears(payload), Worthless)


def test_an_answer_that_somebody_else_wrote_is_worth_nothing(board: Claimant, answer: CertificateAnswer) -> None:
    assert isinstance(board.hears(sealed(answer, "00" * 32)), Worthless)
    unproven = b'{"refusal": {"code": "claim-used", "message": "go away"}}'
    meaning = board.hears(unproven)
    assert isinstance(meaning, Worthless)
    assert "go away" in meaning.why
