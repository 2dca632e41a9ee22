"""Boxes of a variant matched with the original's: what is lost, added or moved by more than the overlap allows.

Boxes at or above the score threshold, greedy non-maximum suppression within a class at the same overlap, then one to
one, the largest overlap first. The value is 2 matched / (the original's + the variant's), which is the F1 score with
the original as the truth, and the same whichever of the two is called the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics.boxes import SCORE_THRESHOLD, Boxes, Reading, read
from autoglm_edge_converter.metrics.shares import Figure, Floats, Shares
from autoglm_edge_converter.tensors import Array

MOST_BOXES = 1000
"""Boxes of one image that suppression looks at, the highest scores first: its cost grows with their square."""


@dataclass(frozen=True)
class BoxAgreement:
    """Judges detectors."""

    reading: Reading
    threshold: float = SCORE_THRESHOLD
    overlap: float = 0.5
    """Intersection over union from which two boxes are the same."""

    @property
    def name(self) -> str:
        """The metric with the overlap that counts."""
        return f"boxes@{self.overlap:g}"

    def figure(self, references: Answers, answers: Answers, labels: Sequence[Array] | None, intervals: bool) -> Figure:
        """Return the agreement; labels are not used."""
        shares = self.shares(references, answers)
        low, high = shares.interval() if intervals else (None, None)
        return Figure(self.name, shares.value, 1.0, low, high)

    def shares(self, references: Answers, answers: Answers) -> Shares:
        """Return matched and existing boxes for each sample."""
        found = [self._sample(r, o) for r, o in zip(references, answers, strict=True)]
        return Shares(np.array([[hits] for hits, _ in found], np.float64), np.array([[of] for _, of in found], float))

    def _sample(self, reference: Sequence[Array], answer: Sequence[Array]) -> tuple[int, int]:
        hits = trials = 0
        ours = read(self.reading, reference, self.threshold)
        for one, other in zip(ours, read(self.reading, answer, self.threshold), strict=True):
            kept, judged = suppress(one, self.overlap), suppress(other, self.overlap)
            hits += 2 * matched(kept, judged, self.overlap)
            trials += len(kept.scores) + len(judged.scores)
        return hits, trials


def overlaps(one: Floats, other: Floats) -> Floats:
    """Return intersection over union of corners [n, 4] and [m, 4] as [n, m]; 0 for boxes without area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = _area(one)[:, None] + _area(other)[None] - shared
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0), np.float64)


def _area(corners: Floats) -> Floats:
    return np.asarray(np.clip(corners[:, 2:] - corners[:, :2], 0, None).prod(axis=1), np.float64)


def suppress(boxes: Boxes, overlap: float) -> Boxes:
    """Drop each box that overlaps one of its class with a higher score."""
    order = np.argsort(-boxes.scores, kind="stable")[:MOST_BOXES]
    corners, classes = boxes.corners[order], boxes.classes[order]
    beaten = (overlaps(corners, corners) > overlap) & (classes[:, None] == classes[None])
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for index in range(len(order)):
        if alive[index]:
            kept.append(index)
            alive &= ~beaten[index]
    chosen = order[kept]
    return Boxes(boxes.corners[chosen], boxes.scores[chosen], boxes.classes[chosen])


def matched(one: Boxes, other: Boxes, overlap: float) -> int:
    """Return how many boxes of one class are in both, one to one."""
    found = overlaps(one.corners, other.corners)
    found[one.classes[:, None] != other.classes[None]] = 0.0
    rows, columns = np.nonzero(found >= overlap)
    left, right = set(rows.tolist()), set(columns.tolist())
    pairs = 0
    for index in np.argsort(-found[rows, columns], kind="stable"):
        row, column = int(rows[index]), int(columns[index])
        if row in left and column in right:
            left.remove(row)
            right.remove(column)
            pairs += 1
    return pairs
