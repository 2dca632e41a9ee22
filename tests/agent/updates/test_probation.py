from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.example_documents import VARIANT

from autoglm_edge_agent.updates.probation import (
    BUFFER_BYTES,
    MIN_RUNS,
    Baseline,
    Evidence,
    Limits,
    Readings,
    capped,
    expected_ratio,
    limits_of,
    offence,
    passed,
)
from autoglm_edge_protocol.histogram import Histogram, HistogramRecorder
from autoglm_edge_protocol.manifest import Variant
from autoglm_edge_protocol.probation import ProbationTerms, ShadowTerms

MIB = 2**20
TERMS = ProbationTerms(shadow=ShadowTerms(min_samples=50, max_disagreement=0.05))
BASELINE = Baseline(requests=100, errors=2, runs=100, run_us=1000.0, temperature_c=60.0)
LIMITS = limits_of(TERMS, BASELINE, 1.0, 100 * MIB, 1024 * MIB)


def _runs(run_us: float, count: int = MIN_RUNS) -> Histogram:
    recorder = HistogramRecorder()
    for _ in range(count):
        recorder.record(run_us)
    return recorder.take()


def _code(seen: Evidence, readings: Readings | None = None, limits: Limits = LIMITS) -> str | None:
    reason = offence(TERMS, limits, BASELINE, seen, readings or Readings())
    return reason.code if reason else None


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (Evidence(), None),
        (Evidence(requests=100, errors=7), None),  # 2 % before, 5 % more are borne
        (Evidence(requests=100, errors=8), "probation-error-rate"),
        (Evidence(requests=9, errors=9), None),  # too few to tell
        (Evidence(crashes=1), None),
        (Evidence(crashes=2), "probation-crashes"),
        (Evidence(compared=49, differed=49), None),
        (Evidence(compared=100, differed=5), None),
        (Evidence(compared=100, differed=5.5), "probation-disagreement"),
        (Evidence(run=_runs(1900.0)), None),  # twice the previous model's time is borne
        (Evidence(run=_runs(2100.0)), "probation-latency"),  # the histogram is exact within 2 %
        (Evidence(run=_runs(9000.0, MIN_RUNS - 1)), None),
    ],
)
def test_what_is_borne_and_what_is_not(seen: Evidence, code: str | None) -> None:
    assert _code(seen) == code


@pytest.mark.parametrize(
    ("readings", "code"),
    [
        (Readings(memory_bytes=200 * MIB + BUFFER_BYTES), None),
        (Readings(memory_bytes=200 * MIB + BUFFER_BYTES + 1), "probation-memory"),
        (Readings(temperature_c=85.0), None),
        (Readings(temperature_c=85.1), "probation-temperature"),
    ],
)
def test_memory_and_temperature(readings: Readings, code: str | None) -> None:
    assert _code(Evidence(), readings) == code


def test_a_board_that_was_hot_before_is_not_held_against_the_model() -> None:
    hot = limits_of(TERMS, BASELINE.model_copy(update={"temperature_c": 90.0}), 1.0, None, MIB)
    assert hot.temperature_c == 95.0
    assert _code(Evidence(), Readings(temperature_c=94.0), hot) is None


def test_memory_is_bounded_by_the_board_where_the_manifest_says_nothing() -> None:
    assert limits_of(TERMS, BASELINE, 1.0, None, 1000).memory_bytes == 750
    assert limits_of(TERMS, BASELINE, 1.0, 10**12, 1000).memory_bytes == 750


def test_latency_is_not_judged_where_the_previous_model_is_not_known() -> None:
    for baseline in (Baseline(), Baseline(runs=MIN_RUNS - 1, run_us=1.0)):
        limits = limits_of(TERMS, baseline, 1.0, None, MIB)
        assert limits.run_us is None
        assert offence(TERMS, limits, baseline, Evidence(run=_runs(10**6)), Readings()) is None


def _variant(machine: str, median_us: float, speedup: float, *unknown_on: str) -> Variant:
    figures = {"machine": machine, "median_us": median_us, "cpu_us": None, "speedup": speedup}
    latency = VARIANT.latency.model_copy(update={**figures, "unknown_on": unknown_on})
    return VARIANT.model_copy(update={"latency": latency})


@pytest.mark.parametrize(
    ("old", "new", "ratio"),
    [
        (None, _variant("a", 10, 1), 1.0),
        (_variant("a", 10, 1), _variant("a", 30, 1), 3.0),  # a larger network, measured on the same machine
        (_variant("a", 30, 1), _variant("a", 10, 3), 1.0),  # faster there; here it need not be
        (_variant("a", 10, 3.0), _variant("b", 10, 1.0), 3.0),  # another machine: from INT8 back to float
        (_variant("a", 0, 1), _variant("a", 10, 1), 1.0),
        (_variant("a", 10, 1), _variant("b", 10, 0), 1.0),
        (_variant("a", 30, 0.5, "here"), _variant("a", 15, 1.0), None),  # perhaps faster here before
        (_variant("a", 15, 1.0), _variant("a", 30, 0.5, "here"), None),
        (_variant("a", 30, 0.5, "here"), _variant("a", 60, 0.5, "here"), 2.0),  # the same kind, twice as large
        (_variant("a", 15, 1.0), _variant("a", 30, 0.5, "elsewhere"), 2.0),
    ],
)
def test_what_the_manifests_lead_to_expect(old: Variant | None, new: Variant, ratio: float | None) -> None:
    assert expected_ratio(old, new, "here") == ratio


def test_latency_is_not_judged_where_nothing_is_to_be_expected_of_it() -> None:
    limits = limits_of(TERMS, BASELINE, None, None, MIB)
    assert offence(TERMS, limits, BASELINE, Evidence(run=_runs(10**6)), Readings()) is None
    assert limits_of(TERMS, BASELINE, 1.0, None, MIB).run_us is not None


def test_it_has_passed_after_time_and_inferences_or_when_patience_ends() -> None:
    terms = ProbationTerms(duration_s=30, inferences=10, patience_s=120)
    assert not passed(terms, Evidence(elapsed_s=29, requests=100))
    assert passed(terms, Evidence(elapsed_s=30, requests=10))
    assert not passed(terms, Evidence(elapsed_s=119, requests=9))
    assert passed(terms, Evidence(elapsed_s=120))
    shadowed = terms.model_copy(update={"shadow": ShadowTerms(min_samples=5)})
    assert not passed(shadowed, Evidence(elapsed_s=60, requests=10, compared=4))
    assert passed(shadowed, Evidence(elapsed_s=60, requests=10, compared=5))


def test_the_owner_of_the_device_caps_what_is_asked_for() -> None:
    terms = ProbationTerms(duration_s=3600, patience_s=7200, shadow=ShadowTerms(rate=0.5))
    short = capped(terms, 60, 0.1)
    assert (short.duration_s, short.patience_s) == (60, 60)
    assert short.shadow is not None and short.shadow.rate == 0.1
    assert capped(terms, 60, 0.0).shadow is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1e6), st.integers(0, 10**6))
def test_every_reason_is_one_that_a_document_can_carry(requests: int, errors: int, differed: float, many: int) -> None:
    seen = Evidence(requests=requests, errors=errors, compared=many, differed=differed, crashes=many)
    reason = offence(TERMS, LIMITS, BASELINE, seen, Readings(many, 200.0))
    assert reason is not None and reason.code.startswith("probation-") and len(reason.message) < 500
