from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.errors import TooFewSamples
from autoglm_edge_converter.split import FEW, Split, SplitLimits, notes_on, split


def parts_of(found: Split) -> tuple[tuple[int, ...], ...]:
    """Return the parts that share nothing."""
    held_back = (found.evaluation,) if found.shared else (found.acceptance, found.evaluation)
    return found.calibration, found.search, *held_back


@given(st.integers(3, 3000), st.integers(0, 2**31))
def test_parts_are_disjoint_filled_and_bounded(count: int, seed: int) -> None:
    limits = SplitLimits(calibration=50, search=40, acceptance=60, evaluation=60)
    parts = split(count, seed, limits=limits)
    assert len(parts.used) == len(set(parts.used)) == sum(map(len, parts_of(parts))) <= count
    assert all(0 <= index < count for index in parts.used)
    assert 1 <= len(parts.calibration) <= 50
    assert 1 <= len(parts.search) <= 40
    assert 1 <= len(parts.acceptance) <= 60
    assert 1 <= len(parts.evaluation) <= 60
    assert parts.shared == (count < FEW)
    assert parts == split(count, seed, limits=limits)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (30, (9, 9, 12, 12)),
        (100, (30, 30, 40, 40)),
        (200, (40, 53, 53, 54)),
        (400, (80, 106, 106, 108)),
        (2000, (256, 256, 256, 512)),
    ],
)
def test_what_users_with_so_many_samples_get(count: int, sizes: tuple[int, ...]) -> None:
    parts = split(count, 0)
    assert tuple(map(len, (parts.calibration, parts.search, parts.acceptance, parts.evaluation))) == sizes


def test_the_seed_decides() -> None:
    assert split(200, 0) != split(200, 1)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_samples_are_refused(count: int) -> None:
    with pytest.raises(TooFewSamples, match="at least 3"):
        split(count, 0)


def test_large_samples_are_thinned_to_the_byte_limit() -> None:
    parts = split(1000, 0, sample_bytes=1000, limits=SplitLimits(bytes_in_all=20_000))
    assert len(parts.used) == 20
    notes = notes_on(parts, 1000)
    assert any("20 of 1000" in note for note in notes)
    assert any("only 20 samples fit" in note for note in notes)


def test_little_data_is_said() -> None:
    (note,) = notes_on(split(30, 0), 30)
    assert "only 30 samples: the same 12 of them decide what is shipped and give its quality" in note
    assert notes_on(split(FEW, 0), FEW) == ()


@given(st.integers(0, 2**16), st.lists(st.integers(0, 4), min_size=60, max_size=300))
def test_every_part_holds_every_class_in_its_share(seed: int, classes: list[int]) -> None:
    parts = split(len(classes), seed, classes=classes)
    assert len(parts.used) == len(set(parts.used)) == len(classes)
    for part in parts_of(parts):
        for label in set(classes):
            found = sum(classes[index] == label for index in part)
            fair = classes.count(label) * len(part) / len(classes)
            # A stretch of an evenly spread class holds its share to within one at each of its two ends.
            assert abs(found - fair) <= 2


def test_a_rare_class_is_not_left_to_chance() -> None:
    classes = [0] * 290 + [1] * 10
    for seed in range(20):
        parts = split(300, seed, classes=classes)
        rare = [sum(classes[index] for index in part) for part in parts_of(parts)]
        assert sum(rare) == 10
        # A fifth of ten or more, to within one at each end of a stretch.
        assert min(rare) >= 1


def test_thinned_parts_stay_stratified() -> None:
    classes = [0, 1] * 2000
    parts = split(4000, 0, classes=classes, limits=SplitLimits(50, 50, 50, 100))
    assert [sum(classes[index] for index in part) for part in (parts.calibration, parts.evaluation)] == [25, 50]


def test_parts_move_with_their_samples() -> None:
    parts = split(50, 0)
    moved = parts.moved({index: index + 100 for index in range(50)})
    assert moved.search == tuple(index + 100 for index in parts.search)
