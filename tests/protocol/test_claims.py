from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from tests.protocol.example_documents import CLAIM, EXAMPLES

from autoglm_edge_protocol.claims import Proven, open_proven, prove, read_claim
from autoglm_edge_protocol.enrolment import CertificateAnswer, CertificateRequest
from autoglm_edge_protocol.errors import MalformedDocument, UnprovenMessage

REQUEST = next(each for each in EXAMPLES if isinstance(each, CertificateRequest))
OTHER_SECRET = "00" * 32


def test_what_is_proven_is_read() -> None:
    assert open_proven(CertificateRequest, prove(REQUEST, CLAIM.secret), CLAIM.secret) == REQUEST


def test_a_proof_is_what_the_page_says() -> None:
    payload = REQUEST.to_bytes()
    kind = b"application/vnd.autoglm-edge.certificate-request.v1+json"
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    expected = hmac.new(bytes.fromhex(CLAIM.secret), message, hashlib.sha256).hexdigest()
    assert prove(REQUEST, CLAIM.secret).proof == expected


def test_nothing_is_read_that_is_not_proven() -> None:
    honest = prove(REQUEST, CLAIM.secret)
    other_name = REQUEST.model_copy(update={"name": "another"}).to_bytes()
    changed = Proven(payload=base64.b64encode(other_name).decode(), proof=honest.proof)
    for proven in (changed, prove(REQUEST, OTHER_SECRET), honest.model_copy(update={"proof": "0" * 64})):
        with pytest.raises(UnprovenMessage, match="holder of the claim's secret"):
            open_proven(CertificateRequest, proven, CLAIM.secret)


def test_a_request_does_not_pass_for_an_answer() -> None:
    with pytest.raises(UnprovenMessage):
        open_proven(CertificateAnswer, prove(REQUEST, CLAIM.secret), CLAIM.secret)


def test_a_claim_survives_its_file_and_its_secret_is_not_shown() -> None:
    assert read_claim(CLAIM.to_text().encode()) == CLAIM
    assert CLAIM.secret not in repr(CLAIM)
    assert CLAIM.secret in CLAIM.to_text()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"secret": "short"}, "secret"),
        ({"claim_id": "../../etc"}, "claim_id"),
        ({"fleet": "a/b"}, "fleet"),
        ({"broker_url": "http://broker"}, "broker_url: Value error, 'http://broker' cannot be understood"),
        ({"broker_ca": "no certificate"}, "broker_ca: Value error, no certificate in PEM"),
        ({"broker_ca": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"}, "broker_ca"),
        ({"tags": {"Site": "x"}}, "tags"),
        ({"tags": {"site": "a\nb"}}, "tags"),
        ({"tags": {f"t{n}": "x" for n in range(33)}}, "tags"),
        ({"name_prefix": "-x"}, "name_prefix"),
        ({"name": "_all"}, "name"),
        ({"fleet_ca_sha256": "ab"}, "fleet_ca_sha256"),
    ],
)
def test_a_claim_that_cannot_be_is_refused_in_a_line(changes: dict[str, object], problem: str) -> None:
    text = json.dumps(json.loads(CLAIM.to_bytes()) | changes)
    with pytest.raises(MalformedDocument, match="not a valid claim: ") as caught:
        read_claim(text.encode())
    assert problem in str(caught.value)
    assert CLAIM.secret not in str(caught.value)
