"""Variants with integers throughout, for accelerators: chosen by their answers, not by speed on this processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS
from tests.converter.tflite.files import MBN

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.choose import Limits, refuse_search, shortlist
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.plan import TFLITE_INTEGERS
from autoglm_edge_converter.quality import TOP1, OutputScore, Score
from autoglm_edge_converter.recipes import Candidate, Recipe
from autoglm_edge_converter.results import Considered
from autoglm_edge_converter.rungs import INTEGERS
from autoglm_edge_converter.search import SearchResult, Trial
from autoglm_edge_converter.tflite.flatbuffer import read_model

WHOLE = TFLITE_INTEGERS[0]


def trial(recipe: Recipe, sqnr_db: float, drop: float = 0.0) -> Trial:
    score = Score((OutputScore("y", TOP1, 1 - drop, sqnr_db, finite=True),), 1000)
    return Trial(Candidate(recipe, format="tflite"), score, 100)


@pytest.mark.slow
def test_int8_io_ships_one_however_slow_this_processor_is(tmp_path: Path) -> None:
    with np.load(DIGITS / "digits32.npz") as digits:
        np.savez(tmp_path / "s.npz", x=digits["test"][:90, :, :, None].astype(np.float32) / 255)
    # Slower than a microsecond in any case: the limit is for what runs on processors like this one.
    options = Options(int8_io=True, max_drop=0.1, max_latency_ms=0.001)
    result = convert(MBN, tmp_path / "s.npz", tmp_path / "out", options)
    assert [variant.id for variant in result.manifest.variants] == ["tflite-fp32", "tflite-int8-io"]
    variant = result.manifest.variants[1]
    assert variant.notes[0] == INTEGERS
    found = read_model((result.directory / variant.model).read_bytes())
    assert {port.dtype for port in (*found.inputs, *found.outputs)} == {"int8"}
    assert {found.main.tensors[entry.outputs[0]].dtype for entry in found.operations()} == {"int8"}
    assert variant.quality.sqnr_db["y"] is not None
    assert variant.quality.sqnr_db["y"] > 30
    timed = [entry for entry in result.findings.considered if entry.trial.candidate.recipe.everything]
    assert [entry.outcome for entry in timed] == ["shipped"]


def test_they_are_no_competitors_of_those_with_float_at_the_border() -> None:
    better, integers, worse = trial(Recipe(), 40), trial(WHOLE, 30), trial(TFLITE_INTEGERS[1], 20)
    assert set(shortlist([better, integers, worse], 0.01)) == {better, integers}


def test_latency_here_does_not_limit_them() -> None:
    timing = Timing(wall_us=9000, cpu_us=9000, noise=0.0)
    limits = Limits(0.01, max_latency_us=1000)
    assert limits.broken_by(Considered(trial(WHOLE, 30), "a", 100, timing, 0.1)) is None
    assert limits.broken_by(Considered(trial(Recipe(), 30), "b", 100, timing, 0.1)) is not None


def test_why_there_is_none_is_told_of_them_alone() -> None:
    result = SearchResult(None, (trial(Recipe(), 40), trial(WHOLE, 10, drop=0.3)))
    assert refuse_search(result, 0.01) is None
    assert "the best of 1 candidates loses 30.00%" in (refuse_search(result, 0.01, integers=True) or "")
