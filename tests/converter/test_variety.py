"""Samples that are too much alike are told of; what varies, and what is constant by its nature, is not."""

from __future__ import annotations

import numpy as np
import pytest

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.variety import notes_on_variety

random = np.random.default_rng(3)


def feeds_of(*values: Array) -> list[Feed]:
    return [{"x": value} for value in values]


def varied(count: int = 10) -> list[Feed]:
    return feeds_of(*random.normal(size=(count, 1, 4)).astype(np.float32))


def scores(*classes: int) -> Answers:
    return tuple(
        (random.uniform(0, 0.4, (1, 5)).astype(np.float32) + np.eye(5, dtype=np.float32)[[c]],) for c in classes
    )


GOOD = scores(*range(5), *range(5))


def told(feeds: list[Feed], answers: Answers = GOOD) -> list[str]:
    return notes_on_variety(["x"], feeds, ["y"], answers)


def test_nothing_is_said_of_samples_that_differ() -> None:
    assert told(varied()) == []
    assert told(varied(1), scores(0)) == [], "one sample cannot differ"


@pytest.mark.parametrize(
    ("different", "says"), [(1, "all 10 samples are the same"), (4, "all 10 samples are copies of 4"), (5, "")]
)
def test_copies(different: int, says: str) -> None:
    some = varied(different)
    notes = told([some[n % different] for n in range(10)])
    assert [says in note for note in notes] == ([True] if says else [])


def test_an_input_that_holds_one_number() -> None:
    (note,) = told(feeds_of(*[np.zeros((1, 4), np.float32)] * 10))
    assert note.startswith("input 'x' holds nothing but 0 in all samples")


@pytest.mark.parametrize(
    "setting", [np.array([16000], np.int64), np.ones((1, 1), np.float32), np.ones((1, 9), np.int32)]
)
def test_settings_beside_what_varies_are_constant_by_their_nature(setting: Array) -> None:
    feeds = [feed | {"rate": setting} for feed in varied()]
    assert notes_on_variety(["x", "rate"], feeds, ["y"], GOOD) == []


def test_answers_that_are_always_the_same() -> None:
    (note,) = told(varied(), scores(*[3] * 10))
    assert note.startswith("the original answers class 3 in 'y' to all 10 samples")
    (note,) = told(varied(), tuple((np.full((1,), 0.25, np.float32),) for _ in range(10)))
    assert note.startswith("the original answers the same in 'y' to all 10 samples")


def test_answers_of_other_kinds() -> None:
    whole: Answers = tuple((np.zeros((1, 3), np.int64),) for _ in range(10))
    assert told(varied(), whole) == [], "counts may be what they are"
    lengths: Answers = tuple((np.zeros((0, 4), np.float32),) for _ in range(10))
    assert told(varied(), lengths) == [], "a detector that sees nothing is judged by its own metric"
