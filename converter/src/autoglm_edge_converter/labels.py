"""Class names: a text file with one label a line, in the order of the model's classes."""

from __future__ import annotations

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
    classes = {array.shape[-1] for array in answers[0] if metric_of([array]) == TOP1}
    if classes and len(lines) not in classes:
        raise BadOption(f"{path} has {len(lines)} labels, the model has {min(classes)} classes: give one label a line")
    return "".join(f"{line}\n" for line in lines).encode()
