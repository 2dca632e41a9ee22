"""Accuracy: the fraction of rows whose largest entry is the label, compared with the original's on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.errors import BadOption, SampleMismatch
from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics.rows import is_embedding, largest, matches
from autoglm_edge_converter.metrics.shares import Figure, Shares
from autoglm_edge_converter.tensors import Array


@dataclass(frozen=True)
class Accuracy:
    """Judges one output by class numbers, one for each of its rows."""

    output: int
    name: str = "accuracy"

    def figure(self, references: Answers, answers: Answers, labels: Sequence[Array] | None, intervals: bool) -> Figure:
        """Return the accuracy, with the original's as its baseline. Raises BadOption without labels."""
        if labels is None:
            raise BadOption("--metric accuracy needs labels: give them beside the samples (see docs/data.md)")
        shares = self._shares(answers, labels)
        low, high = shares.interval() if intervals else (None, None)
        return Figure(self.name, shares.value, self._shares(references, labels).value, low, high)

    def _shares(self, answers: Answers, labels: Sequence[Array]) -> Shares:
        found = [largest(sample[self.output]) for sample in answers]
        return matches([label.ravel() for label in labels], found)


def classifier_outputs(references: Answers) -> tuple[int, ...]:
    """Return the outputs that give one score for each of several classes."""
    return tuple(
        number
        for number, array in enumerate(references[0])
        if np.issubdtype(array.dtype, np.floating)
        and array.ndim == 2
        and array.shape[1] > 1
        and not is_embedding(array)
    )


def fits(labels: Sequence[Array], references: Answers, output: int) -> bool:
    """Tell whether labels may be classes of an output."""
    try:
        check_labels(labels, references, output)
    except SampleMismatch:
        return False
    return True


def check_labels(labels: Sequence[Array], references: Answers, output: int) -> None:
    """Check that labels are classes of the output, one for each of its rows. Raises SampleMismatch."""
    for number, (label, answer) in enumerate(zip(labels, references, strict=True)):
        classes, rows = answer[output].shape[-1], answer[output].size // answer[output].shape[-1]
        if not np.issubdtype(label.dtype, np.integer):
            raise SampleMismatch(f"label of sample {number} is {label.dtype.name}, classes are whole numbers from 0")
        if label.size != rows:
            raise SampleMismatch(f"sample {number} has {label.size} labels, the model gives {rows} rows for it")
        wrong = label[(label < 0) | (label >= classes)]
        if wrong.size:
            raise SampleMismatch(
                f"label {int(wrong[0])} of sample {number} is out of range: the model has {classes} classes, "
                f"0 to {classes - 1}"
            )
