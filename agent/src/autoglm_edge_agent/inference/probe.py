"""The probe: a short-lived process that loads a variant one way, checks it with the golden set, and measures it."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from autoglm_edge_agent.inference.backends import Session
from autoglm_edge_agent.inference.errors import InferenceError
from autoglm_edge_agent.inference.isolated import answer
from autoglm_edge_agent.inference.measurement import Figures
from autoglm_edge_agent.inference.opening import open_variant, replay
from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.golden import GoldenSample

WARM_UP = 3
LEAST_RUNS, MOST_RUNS = 10, 2000


class Disqualified(InferenceError):
    """The candidate is not to be used."""


def probe(question: dict[str, Any]) -> dict[str, Any]:
    """Return placement and figures of one candidate. Raises InferenceError, ProtocolError, OSError."""
    bundle, plan = Path(question["bundle"]), Plan.model_validate(question["plan"])
    manifest = read_manifest(bundle)
    variant = manifest.variant(question["variant"])
    if variant is None:
        raise Disqualified(f"{manifest.id} has no variant {question['variant']}")
    session = open_variant(bundle, variant, plan)
    placement = dict(session.placement())
    if plan.options.provider and placement and plan.options.provider not in placement:
        raise Disqualified(f"it fell back to {', '.join(placement)}: no node of it runs on {plan.options.provider}")
    samples = golden.load(bundle / manifest.golden)
    try:
        violations = replay(samples, variant, session)
    except (ValueError, IndexError) as error:
        raise Disqualified(f"the golden set cannot be replayed: {error}") from None
    if violations:
        text = "; ".join(f"{violation.output}: {violation.message}" for violation in violations)
        raise Disqualified(f"it disagrees with the golden set: {text}")
    figures = _measure(session, samples, float(question["seconds"]))
    return {"placement": placement, "figures": figures.model_dump()}


def _measure(session: Session, samples: list[GoldenSample], seconds: float) -> Figures:
    for number in range(WARM_UP):
        session.run(samples[number % len(samples)].inputs)
    took_ns: list[int] = []
    cpu_began_ns, end_ns = time.process_time_ns(), time.perf_counter_ns() + int(seconds * 1e9)
    while len(took_ns) < MOST_RUNS and (len(took_ns) < LEAST_RUNS or time.perf_counter_ns() < end_ns):
        inputs = samples[len(took_ns) % len(samples)].inputs
        began_ns = time.perf_counter_ns()
        session.run(inputs)
        took_ns.append(time.perf_counter_ns() - began_ns)
    cpu_us = (time.process_time_ns() - cpu_began_ns) / len(took_ns) / 1e3
    p50_us, p99_us = (float(value) / 1e3 for value in np.percentile(took_ns, (50, 99)))
    least_us = 1e-3  # a clock that stands still must not make a figure that has no logarithm
    return Figures(
        latency_p50_us=max(p50_us, least_us),
        latency_p99_us=max(p99_us, least_us),
        cpu_us=max(cpu_us, least_us),
        memory_bytes=_peak_bytes(),
        runs=len(took_ns),
    )


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    answer(probe, InferenceError)
