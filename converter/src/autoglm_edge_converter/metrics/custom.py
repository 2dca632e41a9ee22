"""A user's own metric, `module.py:function(reference_outputs, outputs, labels) -> float`, more is better.

`reference_outputs` and `outputs` are lists with one entry per sample, a dictionary from the output's name to its array
(batch axis included); `labels` is a list of arrays, or None. The original's figure is what the function gives for the
original's own outputs, and a drop is a fraction of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.errors import UserCodeFailed
from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics.shares import Figure, Floats, bootstrap
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.usercode import blamed_on, file_of, load_function
from autoglm_edge_protocol.digests import sha256_of_file

RESAMPLES = 100
"""Fewer than for the metrics here: each is a call of the user's function over all samples."""


@dataclass(frozen=True)
class CustomMetric:
    """Judges by a user's function."""

    name: str
    path: Path
    function: Callable[..., Any] = field(repr=False)
    outputs: tuple[str, ...]
    sha256: str
    """Of the file: another text may judge otherwise."""

    def figure(self, references: Answers, answers: Answers, labels: Sequence[Array] | None, intervals: bool) -> Figure:
        """Call the function for the variant and for the original. Raises UserCodeFailed."""

        def over(rows: Sequence[int], judged: Answers) -> float:
            return self._call(rows, references, judged, labels)

        def resampled(rows: npt.NDArray[np.int64]) -> Floats:
            return np.array([over(row.tolist(), answers) for row in rows], np.float64)

        everything = range(len(references))
        low, high = bootstrap(resampled, len(references), resamples=RESAMPLES) if intervals else (None, None)
        return Figure(self.name, over(everything, answers), over(everything, references), low, high)

    def _call(self, rows: Sequence[int], references: Answers, judged: Answers, labels: Sequence[Array] | None) -> float:
        expected = [dict(zip(self.outputs, references[row], strict=True)) for row in rows]
        found = [dict(zip(self.outputs, judged[row], strict=True)) for row in rows]
        with blamed_on(self.path):
            value = self.function(expected, found, None if labels is None else [labels[row] for row in rows])
            number = float(value)
        if not math.isfinite(number):
            raise UserCodeFailed(f"{self.path.name}: {self.name} gave {number}, a finite number is needed")
        return number


def load_metric(reference: str, outputs: Sequence[str]) -> CustomMetric:
    """Return the metric that `module.py:function` names. Raises UserCodeFailed."""
    name = reference.rpartition(":")[2]
    path = file_of(reference)
    function = load_function(reference)
    return CustomMetric(name, path, function, tuple(outputs), sha256_of_file(path))
