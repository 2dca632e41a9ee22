from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.errors import TooFewSamples
from autoglm_edge_converter.split import FEW, SplitLimits, notes_on, split


@given(st.integers(3, 3000), st.integers(0, 2**31))
def test_parts_are_disjoint_filled_and_bounded(count: int, seed: int) -> None:
    limits = SplitLimits(calibration=50, search=40, evaluation=60)
    parts = split(count, seed, limits=limits)
    assert len(parts.used) == len(set(parts.used)) <= count
    assert all(0 <= index < count for index in parts.used)
    assert 1 <= len(parts.calibration) <= 50
    assert 1 <= len(parts.search) <= 40
    assert 1 <= len(parts.evaluation) <= 60
    assert parts == split(count, seed, limits=limits)


def test_the_seed_decides() -> None:
    assert split(200, 0) != split(200, 1)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_samples_are_refused(count: int) -> None:
    with pytest.raises(TooFewSamples, match="at least 3"):
        split(count, 0)


def test_large_samples_are_thinned_to_the_byte_limit() -> None:
    parts = split(1000, 0, sample_bytes=1000, limits=SplitLimits(bytes_in_all=20_000))
    assert len(parts.used) == 20
    assert any("20 of 1000" in note for note in notes_on(parts, 1000))


def test_little_data_is_said() -> None:
    assert any("only 30 samples" in note for note in notes_on(split(30, 0), 30))
    assert notes_on(split(FEW, 0), FEW) == ()


@given(st.integers(0, 2**16), st.lists(st.integers(0, 4), min_size=60, max_size=300))
def test_every_part_holds_every_class_in_its_share(seed: int, classes: list[int]) -> None:
    parts = split(len(classes), seed, classes=classes)
    assert len(parts.used) == len(set(parts.used)) == len(classes)
    for part in (parts.calibration, parts.search, parts.evaluation):
        for label in set(classes):
            found = sum(classes[index] == label for index in part)
            fair = classes.count(label) * len(part) / len(classes)
            # A stretch of an evenly spread class holds its share to within one at each of its two ends.
            assert abs(found - fair) <= 2


def test_a_rare_class_is_not_left_to_chance() -> None:
    classes = [0] * 290 + [1] * 10
    for seed in range(20):
        parts = split(300, seed, classes=classes)
        rare = [sum(classes[index] for index in part) for part in (parts.calibration, parts.search, parts.evaluation)]
        assert sum(rare) == 10
        assert min(rare) >= 2


def test_thinned_parts_stay_stratified() -> None:
    classes = [0, 1] * 2000
    parts = split(4000, 0, classes=classes, limits=SplitLimits(calibration=50, search=50, evaluation=100))
    assert [sum(classes[index] for index in part) for part in (parts.calibration, parts.evaluation)] == [25, 50]


def test_parts_move_with_their_samples() -> None:
    parts = split(50, 0)
    moved = parts.moved({index: index + 100 for index in range(50)})
    assert moved.search == tuple(index + 100 for index in parts.search)
