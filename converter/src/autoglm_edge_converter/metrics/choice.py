"""Which metric judges a conversion: what `--metric` asks for, or what the original's answers and the labels suggest.

auto                      labels and a classifier's output: accuracy; else boxes where there is evidence of
                          coordinates, else text where rows are distributions over many classes with a blank (see
                          `boxes` and `sequence`, no answer can be both); else each output's own metric
top1, sqnr                top-1 agreement or fidelity, of the worst output
accuracy[:output=NAME]    needs labels
boxes[:score=S,iou=I]     boxes matched at an overlap I (0.5) from a score of S (0.25)
sequence[:blank=B,unit=U] decoded characters or lines, of the first output of three axes
module.py:function        a user's own
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics import boxes, sequence
from autoglm_edge_converter.metrics.accuracy import Accuracy, check_labels, classifier_outputs, fits
from autoglm_edge_converter.metrics.custom import load_metric
from autoglm_edge_converter.metrics.matching import BoxAgreement
from autoglm_edge_converter.metrics.sequence import SequenceAgreement
from autoglm_edge_converter.metrics.worst_output import FIDELITY_OF_ALL, TOP1_OF_ALL
from autoglm_edge_converter.quality import Labels, TaskMetric
from autoglm_edge_converter.usercode import is_reference

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """The metric for the whole model, None for each output's own, and what a user should know about it."""

    task: TaskMetric | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """What a metric is chosen for: the original's answers to some samples and what is true of them."""

    outputs: tuple[str, ...]
    references: Answers
    labels: Labels | None


def check_name(text: str) -> None:
    """Refuse a `--metric` that names nothing, before a model is read. Raises BadOption."""
    if text != AUTO and not is_reference(text):
        _parsed(text)


def choose_metric(text: str, subject: Subject) -> Choice:
    """Return the metric that `--metric` means for a model. Raises BadOption, SampleMismatch, UserCodeFailed."""
    if text == AUTO:
        return _automatic(subject)
    if is_reference(text):
        return Choice(load_metric(text, subject.outputs))
    name, options = _parsed(text)
    return _BY_NAME[name](subject, options)


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    name, _, rest = text.partition(":")
    if name not in _BY_NAME:
        known = ", ".join((AUTO, *_BY_NAME))
        raise BadOption(f"metric {text!r} is not known: choose {known} or module.py:function")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    unknown = [key for key, separator, _ in pairs if not separator or key not in _KEYS.get(name, ())]
    if unknown:
        accepted = ", ".join(f"{key}=" for key in _KEYS.get(name, ())) or "nothing"
        raise BadOption(f"--metric {text}: {unknown[0]!r} is not understood, {name} takes {accepted}")
    return name, {key: value for key, _, value in pairs}


def _automatic(subject: Subject) -> Choice:
    notes: tuple[str, ...] = ()
    if subject.labels is not None:
        if classifier_outputs(subject.references):
            return _accuracy(subject, {})
        notes = ("the labels are not used: no output gives one score for each class; give --metric module.py:function",)
    found = boxes.recognise(subject.references)
    if found is not None:
        return Choice(BoxAgreement(found), (*notes, f"the outputs look like a detector's, {found}: quality is boxes"))
    text = sequence.recognise(subject.references)
    if text is not None:
        note = f"output {subject.outputs[text.output]!r} looks like decoded text: quality is characters, blank is "
        return Choice(text, (*notes, f"{note}class {text.blank}"))
    return Choice(None, notes)


def _accuracy(subject: Subject, options: Mapping[str, str]) -> Choice:
    if subject.labels is None:
        raise BadOption("--metric accuracy needs labels: give labels.csv, class folders, or an array named labels")
    output, notes = _labelled_output(subject, subject.labels, options.get("output"))
    check_labels(subject.labels, subject.references, output)
    metric = Accuracy(output)
    figure = metric.figure(subject.references, subject.references, subject.labels, intervals=False)
    classes = subject.references[0][output].shape[-1]
    if figure.baseline < 2 / classes and figure.baseline < 0.5:
        notes = (
            *notes,
            f"the original itself gets only {figure.baseline:.1%} of the labels right: check the order of the classes "
            "and the pre-processing",
        )
    return Choice(metric, notes)


def _labelled_output(subject: Subject, labels: Labels, named: str | None) -> tuple[int, tuple[str, ...]]:
    """Return the output that the labels are about: the one named, else the one that the original answers best."""
    candidates = classifier_outputs(subject.references)
    if not candidates:
        raise BadOption("--metric accuracy needs an output of [rows, classes]: give --metric module.py:function")
    by_name = {subject.outputs[number]: number for number in candidates}
    if named is not None:
        if named not in by_name:
            raise BadOption(
                f"--metric accuracy:output={named}: outputs with scores of classes are {', '.join(by_name)}"
            )
        return by_name[named], ()
    possible = [number for number in candidates if fits(labels, subject.references, number)] or list(candidates)[:1]
    if len(possible) == 1:
        return possible[0], ()

    def right(number: int) -> float:
        return Accuracy(number).figure(subject.references, subject.references, labels, intervals=False).baseline

    best = max(possible, key=right)
    others = ", ".join(repr(subject.outputs[number]) for number in possible if number != best)
    return best, (
        f"labels are taken to be about output {subject.outputs[best]!r}, where the original is right most often, and "
        f"not {others}; --metric accuracy:output=NAME says otherwise",
    )


def _boxes(subject: Subject, options: Mapping[str, str]) -> Choice:
    threshold, overlap = _fraction(options, "score", boxes.SCORE_THRESHOLD), _fraction(options, "iou", 0.5)
    found = boxes.recognise(subject.references, threshold)
    if found is None:
        raise BadOption(
            f"--metric boxes: no layout of boxes is recognised with a score of {threshold:g} or more: give samples "
            "with objects in them, a lower boxes:score=, or --metric module.py:function"
        )
    return Choice(BoxAgreement(found, threshold, overlap), (f"{found}",))


def _sequence(subject: Subject, options: Mapping[str, str]) -> Choice:
    first = subject.references[0]
    output = next((n for n, a in enumerate(first) if a.ndim == 3 and np.issubdtype(a.dtype, np.floating)), None)
    if output is None:
        raise BadOption("--metric sequence needs an output of [N, frames, classes]: give --metric module.py:function")
    classes = first[output].shape[-1]
    blank = options.get("blank", str(sequence.blank_of(subject.references, output)[0]))
    if not blank.isdecimal() or int(blank) >= classes:
        raise BadOption(f"--metric sequence: blank={blank} is not a class, 0 to {classes - 1}")
    unit = options.get("unit", "characters")
    if unit not in ("characters", "lines"):
        raise BadOption(f"--metric sequence: unit={unit} is not known: choose characters or lines")
    return Choice(SequenceAgreement(output, int(blank), "lines" if unit == "lines" else "characters"))


def _fraction(options: Mapping[str, str], key: str, otherwise: float) -> float:
    try:
        value = float(options.get(key, otherwise))
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise BadOption(f"--metric boxes: {key}={options[key]} is not a fraction between 0 and 1")
    return value


_KEYS: dict[str, tuple[str, ...]] = {"accuracy": ("output",), "boxes": ("score", "iou"), "sequence": ("blank", "unit")}
_BY_NAME: dict[str, Callable[[Subject, Mapping[str, str]], Choice]] = {
    "top1": lambda subject, options: Choice(TOP1_OF_ALL),
    "accuracy": _accuracy,
    "boxes": _boxes,
    "sequence": _sequence,
    "sqnr": lambda subject, options: Choice(FIDELITY_OF_ALL),
}
