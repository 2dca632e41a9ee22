"""Which channels of a group can go with the least harm, judged by what the layers that read them then get wrong.

Second order: the error of a layer's answers after the best refit, when some of its rows are taken out, follows from the
inverse of the second moments (optimal brain surgeon: Hassibi and Stork 1993; for whole layers Frantar and Alistarh,
"Optimal Brain Compression", arXiv 2208.11580). Here a block of rows is a class of coupled channels, and errors of all
readers, each relative to the power of its answers, are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.pruning.patches import Matrix
from autoglm_edge_converter.pruning.refit import RIDGE

STEPS = 16
"""In how many steps a group is emptied; the error is worked out anew after each."""

Rows = npt.NDArray[np.int64]


@dataclass
class _Elimination:
    """One reader while rows are taken from it: its weights refitted so far and the inverse moments of what is left."""

    inverse: Matrix
    matrix: Matrix
    power: float

    def error(self, rows: Rows) -> float:
        """Return the relative error that taking these rows out adds."""
        gone = self.matrix[rows]
        return float(np.sum(gone * np.linalg.solve(self.inverse[np.ix_(rows, rows)], gone))) / self.power

    def remove(self, rows: Rows) -> None:
        """Take rows out and refit the others."""
        columns = self.inverse[:, rows]
        pull = np.linalg.solve(self.inverse[np.ix_(rows, rows)], np.hstack([self.matrix[rows], columns.T]))
        width = self.matrix.shape[1]
        self.matrix = self.matrix - columns @ pull[:, :width]
        self.inverse = self.inverse - columns @ pull[:, width:]
        self.matrix[rows] = 0
        self.inverse[rows] = 0
        self.inverse[:, rows] = 0
        self.inverse[rows, rows] = 1


def _start(moments: Matrix, matrix: Matrix) -> _Elimination:
    ridge = RIDGE * max(float(np.mean(np.diag(moments)[:-1])), 1e-12)
    damped = moments + np.diag(np.append(np.full(len(matrix), ridge), 0.0 if moments[-1, -1] > 0 else 1.0))
    full = np.append(matrix, np.zeros((1, matrix.shape[1])), axis=0)
    mean = moments[-1:, :-1] @ matrix
    power = float(np.sum(matrix * (moments[:-1, :-1] @ matrix)) - np.sum(mean**2))
    return _Elimination(np.asarray(np.linalg.inv(damped), np.float64), full, max(power, 1e-12))


@dataclass(frozen=True)
class Reading:
    """One reader's moments and weights, and which of its rows hold which class."""

    moments: Matrix
    matrix: Matrix
    classes: npt.NDArray[np.int64]
    """The class of each row, int64 [rows]."""


def order(free: Sequence[int], readings: Sequence[Reading], most: int) -> tuple[int, ...]:
    """Return `most` of the classes in the order in which they are best taken out. Ties go by number."""
    left = list(free)
    running = [(_start(reading.moments, reading.matrix), _rows(reading.classes, free)) for reading in readings]
    found: list[int] = []
    step = max(1, len(left) // STEPS)
    while len(found) < most:
        harm = {one: sum(state.error(rows[one]) for state, rows in running if len(rows[one])) for one in left}
        chosen = sorted(left, key=lambda one: (harm[one], one))[: min(step, most - len(found))]
        for one in chosen:
            left.remove(one)
        for state, rows in running:
            gone = np.concatenate([rows[one] for one in chosen])
            if len(gone):
                state.remove(gone)
        found += chosen
    return tuple(found)


def _rows(classes: npt.NDArray[np.int64], free: Sequence[int]) -> dict[int, Rows]:
    return {one: np.flatnonzero(classes == one) for one in free}
