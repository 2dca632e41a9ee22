"""Class names: a text file with one label a line, in the order of the model's classes, or names of folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.quality import TOP1, metric_of


def read_labels(path: Path, answers: Answers) -> bytes:
    """Return the labels as UTF-8 lines, after a check that there is one for every class. Raises BadOption, OSError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise BadOption(f"{path} is not UTF-8 text: give one label a line") from None
    classes = _class_counts(answers)
    if classes and len(lines) not in classes:
        raise BadOption(f"{path} has {len(lines)} labels, the model has {min(classes)} classes: give one label a line")
    return _as_lines(lines)


def labels_from_names(names: Sequence[str], answers: Answers) -> bytes | None:
    """Return the names that the samples give their classes, as UTF-8 lines; None where they are not one for each."""
    whole = bool(names) and len(names) in _class_counts(answers)
    return _as_lines(names) if whole and not any("\n" in name for name in names) else None


def _class_counts(answers: Answers) -> frozenset[int]:
    return frozenset(array.shape[-1] for array in answers[0] if metric_of([array]) == TOP1)


def _as_lines(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
