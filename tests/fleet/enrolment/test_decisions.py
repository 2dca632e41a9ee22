from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_fleet.enrolment.decisions import Known, Refuse, Step, decide, free_name

FRESH = Known(expires_at=100.0, needs_approval=False)
HELD = replace(FRESH, needs_approval=True)
MINE, ANOTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("known", "now", "outcome"),
    [
        (FRESH, 99.0, Step.ISSUE),
        (FRESH, 100.0, "claim-expired"),
        (replace(FRESH, is_revoked=True), 0.0, "claim-revoked"),
        (HELD, 0.0, Step.HOLD),
        (HELD, 100.0, "claim-expired"),
        (replace(HELD, key_sha256=MINE), 500.0, Step.HOLD),  # an owner may take more time than a claim has
        (replace(HELD, key_sha256=MINE, is_approved=True), 500.0, Step.ISSUE),
        (replace(HELD, key_sha256=MINE, is_revoked=True), 0.0, "claim-revoked"),
        (replace(HELD, key_sha256=MINE, is_revoked=True, is_approved=True), 0.0, "claim-revoked"),
        (replace(FRESH, key_sha256=MINE, is_answered=True), 500.0, Step.REPEAT),
        (replace(FRESH, key_sha256=MINE, is_answered=True, is_revoked=True), 500.0, Step.REPEAT),
        (replace(FRESH, key_sha256=MINE, is_answered=True, is_certificate_revoked=True), 0.0, "device-revoked"),
        (replace(FRESH, key_sha256=ANOTHER), 0.0, "claim-used"),
        (replace(FRESH, key_sha256=ANOTHER, is_answered=True), 500.0, "claim-used"),
        (replace(HELD, key_sha256=ANOTHER), 0.0, "claim-used"),
    ],
)
def test_the_table(known: Known, now: float, outcome: Step | str) -> None:
    decided = decide(known, MINE, now)
    assert (decided.reason.code if isinstance(decided, Refuse) else decided) == outcome
    assert isinstance(decided, Refuse) is isinstance(outcome, str)
    if isinstance(decided, Refuse):
        assert decided.is_contested is (outcome == "claim-used")


events = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from([MINE, ANOTHER, "c" * 64])),
        st.tuples(st.sampled_from(["approve", "revoke claim", "revoke device", "time"]), st.just("")),
    ),
    max_size=20,
)


@given(events, st.booleans())
def test_whatever_happens_one_key_gets_a_certificate_and_no_other(happened: list[tuple[str, str]], held: bool) -> None:
    known, now, issued = Known(100.0, held), 0.0, set[str]()
    for event, key in happened:
        if event == "ask":
            decided = decide(known, key, now)
            if not isinstance(decided, Refuse):
                known = replace(known, key_sha256=key)
            if decided is Step.ISSUE:
                known = replace(known, is_answered=True)
                issued.add(key)
        elif event == "approve" and known.key_sha256 and not known.is_revoked:
            known = replace(known, is_approved=True)
        elif event == "revoke claim" and not known.is_answered:
            known = replace(known, is_revoked=True)
        elif event == "revoke device" and known.is_answered:
            known = replace(known, is_certificate_revoked=True)
        elif event == "time":
            now += 60.0
    assert len(issued) <= 1
    assert not (issued and held and not known.is_approved)


@pytest.mark.parametrize(
    ("wanted", "taken", "given_name"),
    [
        ("cam-1", set(), "cam-1"),
        ("cam-1", {"cam-1"}, "cam-1-0a1b2c"),
        ("_fleet", set(), "fleet"),
        ("__--", set(), "device"),
        ("x" * 64, {"x" * 64}, "x" * 57 + "-0a1b2c"),
    ],
)
def test_a_name_is_free_and_a_devices(wanted: str, taken: set[str], given_name: str) -> None:
    assert free_name(wanted, frozenset(taken), "0a1b2c") == given_name
    assert len(given_name) <= 64
