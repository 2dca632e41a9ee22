"""Measuring what may be shipped: time in turns, quality on samples held back, memory in a fresh process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.formats import format_of
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.original import ONNX
from autoglm_edge_converter.recipes import Candidate
from autoglm_edge_converter.results import Measured
from autoglm_edge_converter.workbench import Workbench

TIMED_SAMPLES = 8
ORIGINAL, FP32 = "original", "fp32"


def float_id(form: str) -> str:
    """Return what the float variant of a format is called: ONNX's has the plain name."""
    return FP32 if form == ONNX else f"{form}-{FP32}"


@dataclass(frozen=True)
class Form:
    """A written model to be measured."""

    id: str
    precision: str
    path: Path
    candidate: Candidate | None = None
    pruning: float = 0.0
    stand_in: Path | None = None
    """What answers in its place, where it cannot be run here as it will be (see `twins`)."""

    @property
    def base(self) -> str:
        """The id of the float variant of the same format."""
        return float_id(format_of(self.path))


def time_forms(forms: Sequence[Form], bench: Workbench) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time all forms in turns; return timings and problems by id.

    When one of them ends the process, each is tried alone first, and those that live are timed together.
    """
    samples = _timed(bench)
    problems: dict[str, str] = {}
    try:
        return _together(forms, bench, samples), problems
    except CandidateFailed:
        for form in forms:
            try:
                bench.laboratory.run(form.path, samples[:1])
            except CandidateFailed as error:
                problems[form.id] = str(error)
        alive = [form for form in forms if form.id not in problems]
        try:
            return _together(alive, bench, samples), problems
        except CandidateFailed as error:
            return {}, {form.id: str(error) for form in forms}


def time_together(items: Sequence[Measured], base: str, bench: Workbench) -> list[Measured]:
    """Return the same with timings of one run, in turns, speeds being those to the form `base`.

    Raises CandidateFailed.
    """
    forms = [Form(item.id, item.precision, item.twin or item.path) for item in items]
    timings = _together(forms, bench, _timed(bench))
    return [replace(item, timing=timings[item.id], speedup=speedup(timings[base], timings[item.id])) for item in items]


CLOSE = (0.8, 1.1)
"""Speeds that are measured again, longer, before anything is decided by them."""
PATIENCE = 3.0


def time_again(base: Form, close: Sequence[Form], bench: Workbench, timings: Mapping[str, Timing]) -> dict[str, Timing]:
    """Return timings of forms that are about as fast as the base, from a longer run with it alone.

    They are given in terms of the base's earlier timing, so that they compare with those of the other forms. None
    where the base fails.
    """
    if not close:
        return {}
    try:
        found = bench.laboratory.time([form.path for form in (base, *close)], _timed(bench), PATIENCE)
    except CandidateFailed:
        return {}
    old, new = timings[base.id], found[0]
    wall, cpu = old.wall_us / new.wall_us, old.cpu_us / new.cpu_us
    return {
        form.id: Timing(timing.wall_us * wall, timing.cpu_us * cpu, math.hypot(timing.noise, new.noise))
        for form, timing in zip(close, found[1:], strict=True)
    }


def _timed(bench: Workbench) -> Sequence[int]:
    return bench.parts.search[:TIMED_SAMPLES]


def _together(forms: Sequence[Form], bench: Workbench, samples: Sequence[int]) -> dict[str, Timing]:
    found = bench.laboratory.time([form.path for form in forms], samples)
    return {form.id: timing for form, timing in zip(forms, found, strict=True)}


def measure_form(form: Form, bench: Workbench, timings: Mapping[str, Timing], samples: Sequence[int]) -> Measured:
    """Measure quality on the samples given, and memory. Raises CandidateFailed."""
    timing = timings.get(form.id)
    return Measured(
        id=form.id,
        precision=form.precision,
        path=form.path,
        size_bytes=form.path.stat().st_size,
        quality=bench.score(form.stand_in or form.path, samples, intervals=True),
        timing=timing,
        speedup=speedup(timings.get(form.base), timing),
        memory_bytes=bench.laboratory.peak_memory_bytes(form.path, bench.check_samples[:1]),
        speedup_to_original=speedup(timings.get(ORIGINAL), timing),
        candidate=form.candidate,
        pruning=form.pruning,
        stand_in=form.stand_in,
    )


def speedup(reference: Timing | None, timing: Timing | None) -> float:
    """Return the reference's processor time divided by the other's; 0 where one is missing."""
    return reference.cpu_us / timing.cpu_us if reference and timing and timing.cpu_us > 0 else 0.0
