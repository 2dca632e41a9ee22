"""DSSE envelopes: the specification's own example, thresholds, and whatever else may arrive."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.envelopes import Envelope, pre_authentication_encoding, seal, verified_payload
from autoglm_edge_protocol.errors import MalformedDocument, ProtocolError, UntrustedEnvelope
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import PAYLOAD_TYPES, Director, SignedMessage, open_signed

KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode() * 32) for name in "abc"}
DIRECTOR = Director(keyids=("a", "b"), threshold=2)


def verify(keyid: str, signature: bytes, data: bytes) -> bool:
    try:
        KEYS[keyid].public_key().verify(signature, data)
    except (KeyError, InvalidSignature):
        return False
    return True


def sealed(payload: bytes, *names: str, payload_type: str = "t/x") -> Envelope:
    return seal(payload_type, payload, [(name, KEYS[name].sign) for name in names])


def test_the_example_of_the_specification() -> None:
    """protocol.md of DSSE v1, section Test Vectors: ECDSA over P-256, r and s one behind the other."""
    envelope = Envelope.model_validate_json(
        '{"payload": "aGVsbG8gd29ybGQ=", "payloadType": "http://example.com/HelloWorld", "signatures": [{"sig":'
        ' "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}'
    )
    assert envelope.signed_bytes == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    public = ec.EllipticCurvePublicNumbers(
        46950820868899156662930047687818585632848591499744589407958293238635476079160,
        5640078356564379163099075877009565129882514886557779369047442380624545832820,
        ec.SECP256R1(),
    ).public_key()

    def check(_keyid: str, signature: bytes, data: bytes) -> bool:
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        public.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))  # raises when it is another one
        return True

    assert verified_payload(envelope, "http://example.com/HelloWorld", ["its key"], 1, check) == b"hello world"


def test_lengths_are_those_of_the_bytes() -> None:
    assert pre_authentication_encoding("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


@pytest.mark.parametrize(
    ("signers", "threshold", "good"),
    [("a", 1, True), ("ab", 2, True), ("ba", 2, True), ("a", 2, False), ("c", 1, False), ("ac", 2, False),
     ("ab", 3, False), ("a", 0, False)],
)  # fmt: skip
def test_enough_of_the_right_keys(signers: str, threshold: int, good: bool) -> None:
    envelope = sealed(b"x", *signers)
    if good:
        assert verified_payload(envelope, "t/x", "ab", threshold, verify) == b"x"
        return
    with pytest.raises(UntrustedEnvelope):
        verified_payload(envelope, "t/x", "ab", threshold, verify)


def test_signatures_without_a_keyid_count_each_key_once() -> None:
    both = sealed(b"x", "a", "b")
    bare = [signature.model_copy(update={"keyid": ""}) for signature in both.signatures]
    unnamed = both.model_copy(update={"signatures": tuple(bare)})
    assert verified_payload(unnamed, "t/x", "ab", 2, verify) == b"x"
    twice = both.model_copy(update={"signatures": (bare[0], bare[0], both.signatures[0])})
    with pytest.raises(UntrustedEnvelope, match="1 of 2"):
        verified_payload(twice, "t/x", "ab", 2, verify)


def test_another_type_or_another_payload_is_not_what_was_signed() -> None:
    envelope = sealed(b"x", "a")
    with pytest.raises(UntrustedEnvelope) as caught:
        verified_payload(envelope, "t/y", "a", 1, verify)
    assert caught.value.code == "wrong-type"
    renamed = envelope.model_copy(update={"payloadType": "t/y"})
    changed = envelope.model_copy(update={"payload": base64.b64encode(b"y").decode()})
    for forged, kind in ((renamed, "t/y"), (changed, "t/x")):
        with pytest.raises(UntrustedEnvelope) as caught:
            verified_payload(forged, kind, "a", 1, verify)
        assert caught.value.code == "bad-signature"


def test_either_alphabet_of_base64_and_no_other() -> None:
    envelope = sealed(b"\xfb\xff\xbe>?", "a")
    values = json.loads(envelope.model_dump_json())
    assert values["payload"] == "+/++Pj8="
    safe = values | {"payload": "-_--Pj8="}
    assert verified_payload(Envelope.model_validate(safe), "t/x", "a", 1, verify) == b"\xfb\xff\xbe>?"
    for wrong in ("+/++Pj8", "+/++ Pj8=", "ä", "=", "+/++Pj8=\n"):
        with pytest.raises(ValidationError, match="Base64"):
            Envelope.model_validate(values | {"payload": wrong})


@pytest.mark.parametrize(
    "change",
    [
        {"signatures": []},
        {"signatures": [{"keyid": "a", "sig": "AA=="}] * 2},
        {"signatures": [{"keyid": str(n), "sig": "AA=="} for n in range(LIMITS.signatures + 1)]},
        {"signatures": [{"keyid": "a", "sig": ""}]},
        {"signatures": [{"keyid": "a", "sig": "A" * 4096}]},
        {"payload": "A" * (LIMITS.signed_payload_bytes // 3 * 4 + 4)},
        {"payloadType": ""},
    ],
)
def test_what_is_beyond_the_limits_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Envelope.model_validate(json.loads(sealed(b"x", "a").model_dump_json()) | change)


@pytest.mark.parametrize(
    "change",
    [{"threshold": 3}, {"threshold": 0}, {"keyids": ["a", "a"]}, {"keyids": []}],
)
def test_a_director_that_nobody_or_anybody_could_be(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Director.model_validate({"keyids": ["a", "b"], "threshold": 2} | change)


def message(document: DesiredState | Command, *names: str) -> SignedMessage:
    return SignedMessage(envelope=sealed(document.to_bytes(), *names, payload_type=PAYLOAD_TYPES[type(document)]))


def test_opening_what_the_director_has_signed() -> None:
    desired = DesiredState(fleet="f", device="d", generation=1, bundle=None, signed_at=1.0, expires_at=2.0)
    again = parse(SignedMessage, message(desired, "a", "b").to_bytes())
    assert open_signed(DesiredState, again, DIRECTOR, verify) == desired
    with pytest.raises(UntrustedEnvelope, match="1 of 2"):
        open_signed(DesiredState, message(desired, "a"), DIRECTOR, verify)
    with pytest.raises(UntrustedEnvelope, match="not a"):
        open_signed(Command, message(desired, "a", "b"), DIRECTOR, verify)
    for missing in ("signed_at", "expires_at"):
        unbound = desired.model_copy(update={missing: None})
        with pytest.raises(UntrustedEnvelope, match=f"no {missing}"):
            open_signed(DesiredState, message(unbound, "a", "b"), DIRECTOR, verify)
    command = Command(command_id="c", device="d", name="ping", signed_at=1.0, expires_at=2.0)
    with pytest.raises(UntrustedEnvelope, match="no fleet"):
        open_signed(Command, message(command, "a", "b"), DIRECTOR, verify)


@pytest.mark.parametrize(
    "name",
    ["root.json", "0.root.json", "01.root.json", "1.root.json\n", "../1.root.json", "1.timestamp.json", "1.model-.json",
     "1.model-A.json", "x/timestamp.json"],
)  # fmt: skip
def test_names_that_no_metadata_file_has(name: str) -> None:
    file = {"sha256": "0" * 64, "size_bytes": 1}
    values = {"envelope": json.loads(sealed(b"x", "a").model_dump_json()), "catalogue": {name: file}}
    with pytest.raises(MalformedDocument):
        parse(SignedMessage, json.dumps(values).encode())


def test_a_catalogue_of_more_bytes_than_a_device_takes() -> None:
    file = {"sha256": "0" * 64, "size_bytes": LIMITS.metadata_bytes}
    names = [f"{n}.root.json" for n in range(1, 10)]
    values = {"envelope": json.loads(sealed(b"x", "a").model_dump_json()), "catalogue": dict.fromkeys(names, file)}
    with pytest.raises(MalformedDocument, match="bytes together"):
        parse(SignedMessage, json.dumps(values).encode())


def test_the_fullest_message_fits_into_one_message_of_the_link() -> None:
    signatures = [(f"{n:064x}", lambda _: b"s" * 64) for n in range(LIMITS.signatures)]
    file = {"sha256": "0" * 64, "size_bytes": 10_000}
    names = [f"{n}.root.json" for n in range(100_000_000, 100_000_000 + LIMITS.metadata_files)]
    envelope = seal(
        "application/vnd.autoglm-edge.desired-state.v1+json", b"x" * LIMITS.signed_payload_bytes, signatures
    )
    full = SignedMessage.model_validate({"envelope": envelope, "catalogue": dict.fromkeys(names, file)})
    assert parse(SignedMessage, full.to_bytes(), LIMITS.control_bytes) == full


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
NAMES = st.sampled_from(
    ["envelope", "catalogue", "payload", "payloadType", "signatures", "keyid", "sig", "1.root.json"]
)
OBJECTS = st.dictionaries(NAMES, SCALARS, max_size=3)
ENVELOPES = st.fixed_dictionaries(
    {
        "payload": st.one_of(st.binary(max_size=90).map(lambda data: base64.b64encode(data).decode()), SCALARS),
        "payloadType": st.one_of(st.sampled_from(sorted(PAYLOAD_TYPES.values())), SCALARS),
        "signatures": st.one_of(st.just([{"keyid": "a", "sig": "AA=="}]), st.lists(OBJECTS, max_size=3), SCALARS),
    }
)
MESSAGES = st.fixed_dictionaries({"envelope": st.one_of(ENVELOPES, OBJECTS, SCALARS)}, optional={"catalogue": OBJECTS})


@given(st.one_of(st.binary(max_size=200), MESSAGES.map(lambda value: json.dumps(value).encode())))
def test_whatever_arrives_unsigned_is_refused_and_never_opened(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_signed(DesiredState, parse(SignedMessage, data), DIRECTOR, verify)
    with pytest.raises(ProtocolError):
        open_signed(Command, parse(SignedMessage, data), DIRECTOR, verify)


@given(st.binary(max_size=300), st.text(min_size=1, max_size=20))
def test_every_payload_survives_its_envelope(payload: bytes, payload_type: str) -> None:
    envelope = sealed(payload, "a", payload_type=payload_type)
    again = Envelope.model_validate_json(envelope.model_dump_json())
    assert verified_payload(again, payload_type, "a", 1, verify) == payload


@given(st.data())
def test_one_changed_bit_of_what_was_signed_is_noticed(data: st.DataObject) -> None:
    envelope = sealed(b"what to run", "a")
    payload = bytearray(envelope.unverified_payload)
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    forged = envelope.model_copy(update={"payload": base64.b64encode(payload).decode()})
    with pytest.raises(UntrustedEnvelope):
        verified_payload(forged, "t/x", "a", 1, verify)
