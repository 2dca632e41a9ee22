"""Measuring what may be shipped: quality on held-back samples, time in turns, memory in a fresh process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.results import Measured
from autoglm_edge_converter.workbench import Workbench

TIMED_SAMPLES = 8


@dataclass(frozen=True)
class Form:
    """A written model to be measured."""

    id: str
    precision: str
    path: Path


def measure(
    forms: tuple[Form, ...], bench: Workbench, progress: Progress
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure each form; `fp32` is what the others are compared with.

    Returns what was measured and the problems of the forms that crashed or failed, both by id.
    """
    problems: dict[str, str] = {}
    timings = _time(forms, bench, problems)
    progress.step("latency")
    measured: dict[str, Measured] = {}
    for form in forms:
        try:
            measured[form.id] = _measure_one(form, bench, timings)
        except CandidateFailed as error:
            problems[form.id] = str(error)
        progress.step(f"quality and memory of {form.id}")
    return measured, problems


def _measure_one(form: Form, bench: Workbench, timings: Mapping[str, Timing]) -> Measured:
    timing, float_timing = timings.get(form.id), timings.get("fp32")
    speedup = float_timing.cpu_us / timing.cpu_us if timing and float_timing and timing.cpu_us > 0 else 0.0
    return Measured(
        id=form.id,
        precision=form.precision,
        path=form.path,
        size_bytes=form.path.stat().st_size,
        quality=bench.score(form.path, bench.parts.evaluation, intervals=True),
        timing=timing,
        speedup=speedup,
        memory_bytes=bench.laboratory.peak_memory_bytes(form.path, bench.check_samples[:1]),
    )


def _time(forms: tuple[Form, ...], bench: Workbench, problems: dict[str, str]) -> dict[str, Timing]:
    """Time all forms in turns; when one of them ends the process, time the float one alone and name the others."""
    samples = bench.parts.evaluation[:TIMED_SAMPLES]
    try:
        found = bench.laboratory.time([form.path for form in forms], samples)
        return {form.id: timing for form, timing in zip(forms, found, strict=True)}
    except CandidateFailed:
        timings = {}
        for form in forms:
            try:
                timings[form.id] = bench.laboratory.time([form.path], samples)[0]
            except CandidateFailed as error:
                problems[form.id] = str(error)
        return timings
