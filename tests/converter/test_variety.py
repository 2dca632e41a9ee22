"""Samples that are too much alike are told of; what varies, and what is constant by its nature, is not."""

from __future__ import annotations

import numpy as np
import pytest

from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.variety import notes_on_variety

random = np.random.default_rng(3)


def varied(count: int = 24, size: int = 32) -> list[Feed]:
    return [{"x": value} for value in random.normal(size=(count, 1, size)).astype(np.float32)]


def shares(*classes: int) -> list[Array]:
    """Return what a classifier that ends in softmax answers."""
    return [
        (random.dirichlet(np.ones(5), 1) * 0.4 + 0.6 * np.eye(5)[[number]]).astype(np.float32) for number in classes
    ]


GOOD = shares(*(number % 5 for number in range(24)))


def told(feeds: list[Feed], **answers: list[Array]) -> list[str]:
    return notes_on_variety(["x"], feeds, answers or {"y": GOOD[: len(feeds)]})


def test_nothing_is_said_of_samples_that_differ() -> None:
    assert told(varied()) == []
    assert told(varied(1)) == [], "one sample cannot differ"


@pytest.mark.parametrize(
    ("different", "says"), [(1, "all 24 samples are the same"), (11, "all 24 samples are copies of 11"), (12, "")]
)
def test_copies(different: int, says: str) -> None:
    some = varied(different)
    notes = told([some[number % different] for number in range(24)])
    assert [says in note for note in notes] == ([True] if says else [])


def test_a_few_sensors_have_few_readings() -> None:
    some = varied(4, size=16)
    assert told([some[number % 4] for number in range(24)]) == []


def test_what_is_constant_beside_what_varies_is_a_setting() -> None:
    settings = {
        "rate": np.array([16000]),
        "mask": np.ones((1, 100), np.float32),
        "h0": np.zeros((2, 1, 64), np.float32),
    }
    feeds = [feed | settings for feed in varied()]
    assert notes_on_variety(list(feeds[0]), feeds, {"y": GOOD}) == []


def test_copies_are_seen_beside_a_mask() -> None:
    feeds = [varied(1)[0] | {"mask": np.zeros((1, 100), np.float32)}] * 24
    assert len(notes_on_variety(["x", "mask"], feeds, {"y": GOOD})) == 1


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (shares(*[3] * 24), "answers class 3 in 'y' to all 24 samples"),
        ([np.full((1,), 0.25, np.float32)] * 24, "answers the same in 'y' to all 24 samples"),
    ],
)
def test_answers_that_are_always_the_same(answers: list[Array], says: str) -> None:
    (note,) = told(varied(), y=answers)
    assert says in note


@pytest.mark.parametrize(
    "answers",
    [
        {"boxes": [np.array([[10, 20, 300, 400]], np.float32) + n for n in range(24)]},
        {"size": [np.array([[70, 180]], np.float32) + n for n in range(24)]},
        {"scores": GOOD, "priors": [np.ones((10, 4), np.float32)] * 24},
        {"counts": [np.zeros((1, 3), np.int64)] * 24},
        {"found": [np.zeros((0, 4), np.float32)] * 24},
    ],
    ids=lambda answers: next(iter(answers)),
)
def test_ordinary_answers(answers: dict[str, list[Array]]) -> None:
    assert told(varied(), **answers) == []


def test_few_samples_may_be_of_one_class() -> None:
    assert told(varied(9), y=shares(*[1] * 9)) == []
