from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.converter.metrics.detections import channels, without

from autoglm_edge_converter.metrics.boxes import Boxes, Reading, recognise
from autoglm_edge_converter.metrics.choice import Subject, choose_metric
from autoglm_edge_converter.metrics.matching import BoxAgreement, matched, overlaps, suppress
from autoglm_edge_converter.quality import score

YOLO8 = Reading("channels", 0)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.ravel().astype(float), other.ravel().astype(float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_cosine_over_everything_hides_boxes_that_the_metric_and_the_worst_slice_show() -> None:
    """The case that was met: 29 of 46 boxes left, the cosine of the whole output 0.9997 and more."""
    original = channels(46)
    damaged = without(original, 17)
    assert cosine(original, damaged) > 0.9997
    subject = Subject(("output0",), ((original,),), None)
    choice = choose_metric("auto", subject)
    assert "look like a detector's" in choice.notes[0]
    found = score(["output0"], ((original,),), ((damaged,),), task=choice.task)
    assert found.metric == "boxes@0.5"
    assert found.value == pytest.approx(2 * 29 / (46 + 29))
    worst = found.outputs[0].worst_slice
    assert worst is not None
    assert (worst.axis, worst.index >= 4) == (1, True), "a score channel, not a coordinate"
    assert worst.sqnr_db < 10
    assert (found.sqnr_db or 0) > 40
    plain = score(["output0"], ((original,),), ((damaged,),))
    assert plain.drop > 0.05, "the mean over the channels shows it too, five times the usual budget"


def test_every_layout_is_recognised() -> None:
    eight = channels(20)
    five = np.concatenate([eight[:, :4], np.ones((1, 1, 400), np.float32), eight[:, 4:]], axis=1).transpose(0, 2, 1)
    corners = np.concatenate([eight[:, :2] - eight[:, 2:4] / 2, eight[:, :2] + eight[:, 2:4] / 2], axis=1)
    corners = corners.transpose(0, 2, 1)
    best, classes = eight[:, 4:].max(axis=1), eight[:, 4:].argmax(axis=1)
    rows = np.concatenate([corners, best[..., None], classes[..., None].astype(np.float32)], axis=2)
    scores = eight[:, 4:].transpose(0, 2, 1)
    cases = {
        "channels": (eight,),
        "objects": (five,),
        "rows": (rows,),
        "pair": (corners, scores),
    }
    for layout, answer in cases.items():
        reading = recognise((answer,))
        assert reading is not None, layout
        assert reading.layout == layout
        metric = BoxAgreement(reading)
        assert metric.figure((answer,), (answer,), None, intervals=False).value == 1.0
        assert metric.shares((answer,), (answer,)).trials.sum() == 40, layout


@pytest.mark.parametrize(
    "answer",
    [
        np.random.default_rng(0).normal(size=(1, 6, 400)).astype(np.float32),
        np.random.default_rng(0).random((1, 64, 49)).astype(np.float32),
        np.full((1, 40, 100), 0.01, np.float32),
        channels(0),
        np.zeros((1, 10), np.float32),
        np.zeros((1, 6, 400), np.int64),
    ],
    ids=["noise", "features", "distributions", "no object in sight", "classes", "whole numbers"],
)
def test_what_is_less_clear_is_left_alone(answer: np.ndarray) -> None:
    assert recognise(((answer,),)) is None


def test_boxes_that_move_or_change_their_class_do_not_match() -> None:
    original = channels(10)
    metric = BoxAgreement(YOLO8)
    moved = original.copy()
    moved[0, 0] += 16  # of boxes 20 to 36 wide: an overlap below 0.5
    assert metric.shares(((original,),), ((moved,),)).value < 0.2
    nudged = original.copy()
    nudged[0, 0] += 1
    assert metric.shares(((original,),), ((nudged,),)).value == 1.0
    other = original.copy()
    other[0, 4:] = original[0, [5, 4]]
    assert metric.shares(((original,),), ((other,),)).value == 0.0


def test_many_boxes_of_one_object_count_once() -> None:
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [30, 30, 40, 40]], float)
    boxes = Boxes(corners, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0]))
    assert suppress(boxes, 0.5).scores.tolist() == [0.9, 0.7, 0.6]


CORNERS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 12), st.integers(0, 12)), max_size=8
)


def as_boxes(places: list[tuple[int, int, int, int]]) -> Boxes:
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in places], float).reshape(-1, 4)
    return Boxes(corners, np.full(len(places), 0.5), np.arange(len(places)) % 2)


@given(CORNERS, CORNERS)
def test_matching_is_symmetric_and_bounded(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> None:
    a, b = as_boxes(one), as_boxes(other)  # type: ignore[arg-type]  # hypothesis loses the length of the tuples
    found = matched(a, b, 0.5)
    assert found == matched(b, a, 0.5)
    assert 0 <= found <= min(len(one), len(other))
    assert ((overlaps(a.corners, b.corners) >= 0) & (overlaps(a.corners, b.corners) <= 1)).all()
    with_area = sum(w > 0 and h > 0 for _, _, w, h in one)
    assert matched(a, a, 0.5) == with_area


def test_nan_is_no_box() -> None:
    original = channels(10)
    broken = original.copy()
    broken[0, 4:, :200] = np.nan
    value = BoxAgreement(YOLO8).shares(((original,),), ((broken,),)).value
    assert 0 < value < 1
