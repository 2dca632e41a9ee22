from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.converter.graphs import DIGITS, write_digits

from autoglm_edge_converter.data.reading import read_data
from autoglm_edge_converter.golden_set import ON_THE_BORDER, GoldenLimits, choose_golden, golden_positions, margin
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.loading import Loading, load_original
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.workbench import open_workbench


def answer(gap: float) -> tuple[np.ndarray, ...]:
    return (np.array([[1.0, 1.0 - gap, 0.0]], np.float32),)


def test_half_of_the_samples_lie_near_a_border_but_not_on_it() -> None:
    gaps = np.random.default_rng(0).permutation(np.linspace(0.01, 0.99, 100))
    chosen = choose_golden([answer(gap) for gap in gaps], [100] * 100)
    assert len(chosen) == 16
    near = [position for position in np.argsort(gaps) if gaps[position] >= ON_THE_BORDER]
    assert set(near[:8]) <= set(chosen)
    assert max(gaps[list(chosen)]) > 0.5


def test_samples_that_all_lie_on_a_border_are_taken_evenly() -> None:
    assert choose_golden([answer(0.01)] * 32, [100] * 32) == tuple(range(0, 32, 2))


def test_large_tensors_make_a_small_set() -> None:
    answers = [answer(0.5)] * 30
    assert len(choose_golden(answers, [1000] * 30, GoldenLimits(size_bytes=3500))) == 3
    assert len(choose_golden(answers, [10**9] * 30)) == 1


def test_outputs_without_classes_have_no_border() -> None:
    assert margin((np.zeros((1, 3, 4, 4), np.float32),)) == float("inf")
    assert margin(answer(0.25)) == 0.25


def test_answers_without_classes_are_taken_where_they_are_strong() -> None:
    loud = {5, 17, 40}
    answers = [(np.full((1, 1, 4, 4), 1.0 if number in loud else 1e-3, np.float32),) for number in range(60)]
    assert loud <= set(choose_golden(answers, [100] * 60))


def test_rows_of_one_sample_count_together() -> None:
    rows = np.array([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]], np.float32)
    assert margin((rows,)) == 0.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 20))
def test_the_choice_is_distinct_sorted_and_bounded(gaps: list[float], most: int) -> None:
    chosen = choose_golden([answer(gap) for gap in gaps], [1] * len(gaps), GoldenLimits(samples=most))
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(most, len(gaps))
    assert all(0 <= position < len(gaps) for position in chosen)


def test_the_set_comes_from_the_acceptance_part_and_depends_on_no_variant(tmp_path: Path) -> None:
    source = load_original(str(DIGITS / "mbn.onnx"), Loading(), tmp_path, Silent())
    data = read_data(write_digits(tmp_path / "s.npz", 240), source.inputs, 0)
    with Laboratory(data.feeds, tmp_path) as laboratory:
        bench = open_workbench(source, data, laboratory, tmp_path)
        golden = golden_positions(bench)
        assert set(golden) <= set(bench.parts.acceptance)
        assert not set(golden) & {*bench.parts.calibration, *bench.parts.search, *bench.parts.evaluation}
        assert len(golden) == 16
