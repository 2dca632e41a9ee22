from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.metrics.choice import Subject, choose_metric
from autoglm_edge_converter.metrics.sequence import SequenceAgreement, blank_of, decode, edit_distance, recognise

CLASSES = 30


def frames(path: list[int], classes: int = CLASSES) -> np.ndarray:
    """Return float32 [1, frames, classes], distributions whose best class follows the path."""
    answer = np.full((1, len(path), classes), 0.1 / (classes - 1), np.float32)
    answer[0, range(len(path)), path] = 0.9
    return answer


HELLO = [0, 8, 8, 0, 5, 0, 12, 0, 12, 12, 0, 15, 0]


def test_repeats_are_merged_unless_a_blank_is_between() -> None:
    assert decode(frames(HELLO), 0) == [(8, 5, 12, 12, 15)]


def test_a_character_lost_is_one_of_five_and_a_whole_line() -> None:
    lost = [0, 8, 8, 0, 5, 0, 12, 12, 12, 12, 0, 15, 0]
    references, answers = ((frames(HELLO),),), ((frames(lost),),)
    assert SequenceAgreement(0, 0).shares(references, answers).value == pytest.approx(0.8)
    assert SequenceAgreement(0, 0, "lines").shares(references, answers).value == 0.0
    assert SequenceAgreement(0, 0).shares(references, references).value == 1.0


def test_text_is_recognised_by_its_blanks() -> None:
    found = recognise(((frames(HELLO),),))
    assert found == SequenceAgreement(0, 0)
    at_the_end = [CLASSES - 1 if c == 0 else c for c in HELLO]
    assert recognise(((frames(at_the_end),),)) == SequenceAgreement(0, CLASSES - 1)
    assert recognise(((frames(list(range(1, 14))),),)) is None
    assert recognise(((frames(HELLO)[:, :4],),)) is None
    choice = choose_metric("auto", Subject(("text",), ((frames(HELLO),),), None))
    assert choice.notes == ("output 'text' looks like decoded text: quality is characters, blank is class 0",)
    blank, share = blank_of(((frames(HELLO),),), 0)
    assert blank == 0
    assert share == pytest.approx(6 / 13)


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_the_edit_distance_is_a_metric(one: list[int], other: list[int]) -> None:
    distance = edit_distance(one, other)
    assert distance == edit_distance(other, one)
    assert (distance == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
