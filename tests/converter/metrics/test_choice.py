from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.data.files import write_lines
from tests.converter.metrics.detections import channels

from autoglm_edge_converter.errors import BadOption, ConversionError, SampleMismatch
from autoglm_edge_converter.metrics.accuracy import Accuracy
from autoglm_edge_converter.metrics.choice import Subject, check_name, choose_metric
from autoglm_edge_converter.quality import score

CLASSES = np.random.default_rng(0).normal(size=(40, 1, 5)).astype(np.float32)
ANSWERS = tuple((rows,) for rows in CLASSES)
LABELS = [rows.argmax(axis=1) for rows in CLASSES]


def subject(labels: list[np.ndarray] | None = None) -> Subject:
    return Subject(("y",), ANSWERS, labels)


def test_labels_make_accuracy_the_metric_and_the_original_its_baseline() -> None:
    labels = [*LABELS[:30], *[(label + 1) % 5 for label in LABELS[30:]]]
    choice = choose_metric("auto", subject(labels))
    worse = (*ANSWERS[:24], *((-rows,) for (rows,) in ANSWERS[24:]))
    found = score(["y"], ANSWERS, worse, labels, choice.task, intervals=True)
    assert (found.metric, found.baseline) == ("accuracy", 0.75)
    right = sum(int((answer[0].argmax(axis=1) == label).all()) for answer, label in zip(worse, labels, strict=True))
    assert found.value == right / 40
    assert found.drop == pytest.approx((0.75 - right / 40) / 0.75)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_an_original_that_gets_everything_wrong_is_said() -> None:
    choice = choose_metric("accuracy", subject([(label + 1) % 5 for label in LABELS]))
    assert "the original itself gets only 0.0% of the labels right" in choice.notes[0]


def test_without_labels_each_output_has_its_own_metric() -> None:
    choice = choose_metric("auto", subject())
    assert (choice.task, choice.notes) == (None, ())
    found = score(["y"], ANSWERS, ANSWERS, intervals=True)
    assert (found.metric, found.value, found.drop) == ("top1-agreement", 1.0, 0.0)
    assert found.interval == pytest.approx((0.9124, 1.0), abs=1e-4)


@pytest.mark.parametrize(("name", "metric"), [("top1", "top1-agreement"), ("sqnr", "fidelity")])
def test_a_metric_for_all_outputs_is_the_worst_of_them(name: str, metric: str) -> None:
    references = tuple((rows, rows) for rows in CLASSES)
    answers = tuple((rows, -rows) for rows in CLASSES)
    choice = choose_metric(name, Subject(("a", "b"), references, None))
    found = score(["a", "b"], references, answers, task=choice.task)
    assert (found.metric, found.value) == (metric, 0.0)
    assert score(["a", "b"], references, references, task=choice.task).value == 1.0


def test_a_user_s_metric_sees_names_outputs_and_labels(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "mine.py",
        [
            "def mean_margin(reference_outputs, outputs, labels):",
            "    assert len(reference_outputs) == len(outputs) == len(labels)",
            "    return sum(float(o['y'][0, l[0]]) for o, l in zip(outputs, labels)) / len(outputs)",
        ],
    )
    choice = choose_metric(f"{tmp_path / 'mine.py'}:mean_margin", subject(LABELS))
    half = tuple((rows / 2,) for (rows,) in ANSWERS)
    found = score(["y"], ANSWERS, half, LABELS, choice.task, intervals=True)
    assert found.metric == "mean_margin"
    assert found.drop == pytest.approx(0.5)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert "0x" not in repr(choice.task), "what names a metric in a cache holds no address"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    return 1 / 0", r"mine\.py line 2, in mine: ZeroDivisionError"),
        ("    return None", r"mine\.py: TypeError"),
        ("    return float('nan')", "mine gave nan, a finite number is needed"),
        ("    return outputs[0]['z']", "KeyError: 'z'"),
    ],
)
def test_mistakes_in_a_user_s_metric_are_one_line(tmp_path: Path, body: str, says: str) -> None:
    write_lines(tmp_path / "mine.py", ["def mine(reference_outputs, outputs, labels):", body])
    choice = choose_metric(f"{tmp_path / 'mine.py'}:mine", subject())
    with pytest.raises(ConversionError, match=says) as caught:
        score(["y"], ANSWERS, ANSWERS, task=choice.task)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["best", "top1:x=1", "boxes:speed=3", "boxes:score", "sequence:unit", "", "mine.py:", "mine:f"]
)
def test_names_that_mean_nothing_are_refused_before_a_model_is_read(text: str) -> None:
    with pytest.raises(BadOption, match=r"is not known|is not understood") as caught:
        check_name(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "labels", "error", "says"),
    [
        ("accuracy", None, BadOption, "needs labels"),
        ("accuracy", [np.array([7])] * 40, SampleMismatch, "label 7 of sample 0 is out of range: the model has 5"),
        ("accuracy", [np.array([-1])] * 40, SampleMismatch, "label -1 of sample 0 is out of range"),
        ("auto", [np.array([0.5])] * 40, SampleMismatch, "is float64, classes are whole numbers"),
        ("auto", [np.array([0, 1])] * 40, SampleMismatch, "has 2 labels, the model gives 1 rows"),
        ("boxes", None, BadOption, "no layout of boxes is recognised"),
        ("boxes:score=2", None, BadOption, "score=2 is not a fraction"),
        ("sequence", None, BadOption, "needs an output of"),
    ],
)
def test_metrics_that_do_not_fit_are_said(
    text: str, labels: list[np.ndarray] | None, error: type[ConversionError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        choose_metric(text, subject(labels))
    assert "\n" not in str(caught.value)


def test_options_of_boxes_and_sequences_are_read() -> None:
    detector = Subject(("o",), ((channels(10),),), None)
    assert choose_metric("boxes:score=0.4,iou=0.7", detector).task is not None
    text = Subject(("o",), ((np.full((1, 9, 4), 0.25, np.float32),),), None)
    for bad in ("sequence:blank=4", "sequence:blank=x", "sequence:unit=words"):
        with pytest.raises(BadOption):
            choose_metric(bad, text)
    task = choose_metric("sequence:blank=3,unit=lines", text).task
    assert task is not None
    assert task.name == "lines-agreement"


def test_labels_that_no_output_can_be_judged_by_are_said() -> None:
    image = ((np.zeros((1, 3, 8, 8), np.float32),),)
    choice = choose_metric("auto", Subject(("y",), image, [np.array([1])]))
    assert choice.task is None
    assert "the labels are not used" in choice.notes[0]


def ctc(frame_count: int, classes: int, blank_every: int = 2, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Return [1, frames, classes] as softmax gives it: every so many frames the blank, class 0, else a character."""
    choice = np.random.default_rng(seed)
    logits = choice.normal(size=(1, frame_count, classes))
    best = np.where(np.arange(frame_count) % blank_every == 0, 0, choice.integers(1, classes, frame_count))
    logits[0, np.arange(frame_count), best] += 12 + np.log(classes)
    rows = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True), dtype)


def uniform(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 1, shape).astype(np.float32)


CORNERS = np.concatenate([uniform(1, 50, 2) * 0.5, uniform(1, 50, 2) * 0.5 + 0.5], axis=2)
OF_FOUR = np.full((1, 50, 4), 0.25, np.float32)


@pytest.mark.parametrize(
    ("outputs", "metric"),
    [
        # a recogniser of text: few or many frames, few or many classes, blanks everywhere or seldom, half precision
        ((ctc(40, 18710),), "characters-agreement"),
        ((ctc(120, 6625),), "characters-agreement"),
        ((ctc(400, 97),), "characters-agreement"),
        ((ctc(400, 40, blank_every=12),), "characters-agreement"),
        ((ctc(40, 18710, dtype=np.float16),), "characters-agreement"),
        ((np.log(ctc(40, 6625) + np.float32(1e-30)),), "characters-agreement"),
        ((ctc(40, 6625), uniform(1, 40, 8)), "characters-agreement"),
        # distributions without a blank, as a language model gives them
        ((ctc(40, 6625, blank_every=1000),), None),
        # boxes: before suppression, as a pair, and what only resembles them
        ((channels(20),), "boxes@0.5"),
        ((channels(20) * np.array([1 / 800] * 4 + [1] * 2, np.float32).reshape(1, 6, 1),), "boxes@0.5"),
        ((CORNERS, uniform(1, 50, 3)), "boxes@0.5"),
        ((OF_FOUR, uniform(1, 50, 3)), None),
        ((uniform(1, 40, 8),), None),
        ((np.where(uniform(1, 40, 6625) > 0.999, np.float32(1), np.float32(1e-6)),), None),
    ],
)
def test_boxes_need_coordinates_and_text_needs_distributions(
    outputs: tuple[np.ndarray, ...], metric: str | None
) -> None:
    names = tuple(f"o{number}" for number in range(len(outputs)))
    choice = choose_metric("auto", Subject(names, (outputs, outputs), None))
    assert (choice.task.name if choice.task else None) == metric


def test_a_sample_without_detections_is_no_evidence_against_boxes() -> None:
    found = np.concatenate([CORNERS * 100, uniform(1, 50, 1), np.ones((1, 50, 1), np.float32)], axis=2)
    choice = choose_metric("auto", Subject(("o",), ((found,), (np.zeros((1, 0, 6), np.float32),)), None))
    assert choice.task is not None
    assert choice.task.name == "boxes@0.5"


def test_of_several_outputs_the_labels_are_about_the_one_that_is_right_most_often() -> None:
    labels = tuple(np.array([value]) for value in (0, 1, 1, 0))
    wrong = np.array([[0.4, 0.6]], np.float32)
    answers = tuple((wrong, np.eye(2, dtype=np.float32)[label]) for label in labels)
    chosen = choose_metric("auto", Subject(("box", "face"), answers, labels))
    assert chosen.task == Accuracy(1)
    assert any("'face'" in note and "'box'" in note for note in chosen.notes)
    assert choose_metric("accuracy:output=box", Subject(("box", "face"), answers, labels)).task == Accuracy(0)
    with pytest.raises(BadOption, match="box, face"):
        choose_metric("accuracy:output=none", Subject(("box", "face"), answers, labels))


def test_labels_beyond_the_classes_of_an_output_are_about_another() -> None:
    labels = tuple(np.array([value]) for value in (0, 2, 1))
    two = np.array([[1.0, 0.0]], np.float32)
    answers = tuple((two, np.eye(3, dtype=np.float32)[label]) for label in labels)
    chosen = choose_metric("auto", Subject(("gate", "kind"), answers, labels))
    assert chosen.task == Accuracy(1)
    assert chosen.notes == ()
