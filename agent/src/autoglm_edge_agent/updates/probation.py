"""Whether a model on probation may stay: limits, what was seen, and the verdict. Pure.

The time of a run is compared with the previous model's live median on this device, from the minutes before the switch,
and not with the time of the golden set: that one is measured beside a serving worker, on a few inputs, with cold
caches. Only runs of the model count, neither queues nor JSON, and of them the processor time: a board that happens to
be busy, be it with the shadow, must not make a model look slow. The manifests' figures say what change is to be
expected; a model that should be faster here and is not is no reason to go back: the ratio was measured elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.updates.fit import MEMORY_SHARE
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.documents import Count, Part
from autoglm_edge_protocol.histogram import Histogram, merge
from autoglm_edge_protocol.manifest import Variant
from autoglm_edge_protocol.probation import ProbationReport, ProbationTerms

MIN_REQUESTS = 10
"""Requests before a share of errors means anything."""
MIN_RUNS = 20
"""Runs, of each of the two models, before their medians are compared."""
BUFFER_BYTES = 64 * 1024 * 1024
"""What requests may take of a worker's memory beside the model; the converter measures without any."""
WARMER_C = 5.0
"""A board that was beyond the limit before the switch may get so much warmer."""


class Evidence(Part):
    """What was seen of the model since its activation. Kept with the update's record."""

    elapsed_s: float = Field(default=0.0, ge=0)
    requests: Count = 0
    errors: Count = 0
    crashes: Count = 0
    run: Histogram = Field(default_factory=Histogram)
    """Processor times of the runs of the model alone."""
    compared: Count = 0
    differed: float = Field(default=0.0, ge=0)

    def plus(self, more: Evidence) -> Evidence:
        """Return the sum of two."""
        return Evidence(
            elapsed_s=self.elapsed_s + more.elapsed_s,
            requests=self.requests + more.requests,
            errors=self.errors + more.errors,
            crashes=self.crashes + more.crashes,
            run=merge([self.run, more.run]),
            compared=self.compared + more.compared,
            differed=self.differed + more.differed,
        )

    def report(self) -> ProbationReport:
        """Return what the fleet is told."""
        return ProbationReport(
            elapsed_s=round(self.elapsed_s, 1),
            requests=self.requests,
            errors=self.errors,
            crashes=self.crashes,
            compared=self.compared,
            differed=round(self.differed, 3),
        )


class Baseline(Part):
    """How the previous model did, as far as that is known."""

    requests: Count = 0
    errors: Count = 0
    runs: Count = 0
    run_us: float | None = None
    """Median processor time of a run."""
    temperature_c: float | None = None

    @property
    def error_rate(self) -> float:
        """Share of requests that were answered with an error; 0 when too few are known."""
        return self.errors / self.requests if self.requests >= MIN_REQUESTS else 0.0


@dataclass(frozen=True)
class Readings:
    """The least of the last few readings each, so that a moment decides nothing; None where nothing is known."""

    memory_bytes: int | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class Limits:
    """What is too much, in figures of this device. None: not judged."""

    error_rate: float
    run_us: float | None
    expected_ratio: float
    memory_bytes: int
    temperature_c: float
    crashes: int


def capped(terms: ProbationTerms, max_duration_s: float, max_shadow_rate: float) -> ProbationTerms:
    """Return the terms as far as the device's owner allows them."""
    shadow = terms.shadow
    if shadow is not None:
        rate = min(shadow.rate, max_shadow_rate)
        shadow = shadow.model_copy(update={"rate": rate}) if rate > 0 else None
    return terms.model_copy(
        update={
            "duration_s": min(terms.duration_s, max_duration_s),
            "patience_s": min(terms.patience_s, max_duration_s),
            "shadow": shadow,
        }
    )


def expected_ratio(old: Variant | None, new: Variant, machine: str) -> float | None:
    """Return how many times as long as the old one's the manifests lead to expect that a run takes; at least 1.

    Times of one machine and thread count are compared directly; others only through each one's speed-up over its own
    float variant, which is right where both are of the same network. None where the times of one of them tell nothing
    of this machine (`aarch64`, ...) and those of the other do.
    """
    if old is None:
        return 1.0
    ours, theirs = new.latency, old.latency
    if (machine in ours.unknown_on) != (machine in theirs.unknown_on):
        return None
    if (ours.machine, ours.runtime, ours.threads) == (theirs.machine, theirs.runtime, theirs.threads):
        longer, shorter = ours.cpu_us or ours.median_us, theirs.cpu_us or theirs.median_us
    else:
        longer, shorter = theirs.speedup, ours.speedup
    return max(1.0, longer / shorter) if shorter > 0 else 1.0


def limits_of(
    terms: ProbationTerms, baseline: Baseline, ratio: float | None, needs_bytes: int | None, board_bytes: int
) -> Limits:
    """Return the limits. `needs_bytes` is what the manifest says of the variant, `board_bytes` all of the memory.

    `ratio`: see `expected_ratio`; without one latency is not judged.
    """
    run_us = baseline.run_us if baseline.runs >= MIN_RUNS else None
    share_bytes = int(MEMORY_SHARE * board_bytes)
    own_bytes = int(terms.max_memory_ratio * needs_bytes) + BUFFER_BYTES if needs_bytes else share_bytes
    before_c = baseline.temperature_c
    return Limits(
        error_rate=baseline.error_rate + terms.max_error_rate,
        run_us=terms.max_latency_ratio * ratio * run_us if run_us is not None and ratio is not None else None,
        expected_ratio=ratio or 1.0,
        memory_bytes=min(share_bytes, own_bytes),
        temperature_c=max(terms.max_temperature_c, before_c + WARMER_C if before_c is not None else 0.0),
        crashes=terms.max_crashes,
    )


def offence(
    terms: ProbationTerms, limits: Limits, baseline: Baseline, seen: Evidence, readings: Readings
) -> Reason | None:
    """Return why the model must go, None while it may stay."""
    found = (
        _crashes(limits, seen)
        or _errors(limits, baseline, seen)
        or _disagreement(terms, seen)
        or _latency(limits, baseline, seen)
        or _readings(limits, readings)
    )
    return Reason(code=found[0], message=found[1]) if found else None


def passed(terms: ProbationTerms, seen: Evidence) -> bool:
    """Whether the model has been watched long enough."""
    samples = terms.shadow.min_samples if terms.shadow else 0
    asked = seen.requests >= terms.inferences and seen.compared >= samples
    return seen.elapsed_s >= (terms.duration_s if asked else terms.patience_s)


def went_down(state: str, times: int) -> Refusal:
    """Return why a bundle is given up during whose activation or probation the device went down again and again."""
    return Refusal(
        "probation-crashes", f"the device or its agent went down {times} times in {state} with this bundle serving"
    )


Found = tuple[str, str] | None


def _crashes(limits: Limits, seen: Evidence) -> Found:
    if seen.crashes <= limits.crashes:
        return None
    return "probation-crashes", (
        f"its worker crashed {seen.crashes} times within {seen.elapsed_s:.0f} s, {limits.crashes} are borne"
    )


def _errors(limits: Limits, baseline: Baseline, seen: Evidence) -> Found:
    if seen.requests < MIN_REQUESTS or seen.errors / seen.requests <= limits.error_rate:
        return None
    return "probation-error-rate", (
        f"{seen.errors} of {seen.requests} requests ({seen.errors / seen.requests:.1%}) were answered with an error, "
        f"at most {limits.error_rate:.1%} may be; with the previous model {baseline.error_rate:.1%} were"
    )


def _disagreement(terms: ProbationTerms, seen: Evidence) -> Found:
    shadow = terms.shadow
    if shadow is None or seen.compared < shadow.min_samples:
        return None
    if seen.differed / seen.compared <= shadow.max_disagreement:
        return None
    return "probation-disagreement", (
        f"on live inputs it answers differently from the previous model in {seen.differed / seen.compared:.1%} of "
        f"{seen.compared} cases, at most {shadow.max_disagreement:.1%} may differ"
    )


def _latency(limits: Limits, baseline: Baseline, seen: Evidence) -> Found:
    median_us = seen.run.quantile(0.5)
    if limits.run_us is None or baseline.run_us is None or median_us is None or seen.run.count < MIN_RUNS:
        return None
    if median_us <= limits.run_us:
        return None
    return "probation-latency", (
        f"a run takes {median_us / 1000:.2f} ms of processor time (median of {seen.run.count}), at most "
        f"{limits.run_us / 1000:.2f} ms may it take; the previous model took {baseline.run_us / 1000:.2f} ms here, and "
        f"by the manifests {limits.expected_ratio:.2f} times that is to be expected"
    )


def _readings(limits: Limits, readings: Readings) -> Found:
    memory_bytes, temperature_c = readings.memory_bytes, readings.temperature_c
    if memory_bytes is not None and memory_bytes > limits.memory_bytes:
        return "probation-memory", (
            f"its worker takes {memory_bytes / 2**20:.0f} MiB of memory, at most {limits.memory_bytes / 2**20:.0f} MiB "
            "may it take"
        )
    if temperature_c is not None and temperature_c > limits.temperature_c:
        return "probation-temperature", (
            f"the board has {temperature_c:.1f} degrees C, at most {limits.temperature_c:.1f} may it have"
        )
    return None
