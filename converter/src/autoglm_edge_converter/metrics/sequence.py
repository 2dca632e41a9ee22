"""Text read from frames, as CTC decodes it: the best class of each frame, repeats merged, blanks dropped.

An output is taken for CTC's when it is [N, frames, classes] with at least 8 frames and 20 classes, each row is a
distribution (or the logarithm of one, as many are exported), and the first or the last class is the best of many
frames: of a quarter, or of a twentieth and of more than any other class, which is what closely set text leaves.

Source of the decoding: A. Graves et al., "Connectionist temporal classification", ICML 2006, best path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics.rows import is_distribution
from autoglm_edge_converter.metrics.shares import Figure, Shares
from autoglm_edge_converter.tensors import Array

FEWEST_FRAMES, FEWEST_CLASSES = 8, 20
BLANK_SHARE = 0.25
LEAST_BLANK_SHARE = 0.05
"""Enough where no other class is the best of more frames. A language model hardly ever prefers its class 0."""


@dataclass(frozen=True)
class SequenceAgreement:
    """Judges recognisers of text or speech by one output, float [N, frames, classes]."""

    output: int
    blank: int
    unit: Literal["characters", "lines"] = "characters"

    @property
    def name(self) -> str:
        """`characters` or `lines`, agreeing."""
        return f"{self.unit}-agreement"

    def figure(self, references: Answers, answers: Answers, labels: Sequence[Array] | None, intervals: bool) -> Figure:
        """Return the agreement; labels are not used."""
        shares = self.shares(references, answers)
        low, high = shares.interval() if intervals else (None, None)
        return Figure(self.name, shares.value, 1.0, low, high)

    def shares(self, references: Answers, answers: Answers) -> Shares:
        """Return agreeing characters (the longer line less the edit distance) or equal lines for each sample."""
        found = [self._sample(r[self.output], o[self.output]) for r, o in zip(references, answers, strict=True)]
        return Shares(np.array([[hits] for hits, _ in found], float), np.array([[of] for _, of in found], float))

    def _sample(self, reference: Array, answer: Array) -> tuple[int, int]:
        hits = trials = 0
        for one, other in zip(decode(reference, self.blank), decode(answer, self.blank), strict=True):
            if self.unit == "lines":
                hits, trials = hits + (one == other), trials + 1
            else:
                longest = max(len(one), len(other))
                hits, trials = hits + longest - edit_distance(one, other), trials + longest
        return hits, trials


def decode(frames: Array, blank: int) -> list[tuple[int, ...]]:
    """Return the best path of each line of [N, frames, classes] as class numbers."""
    best = np.nan_to_num(frames, nan=-np.inf, posinf=np.inf, neginf=-np.inf).argmax(axis=-1)
    return [tuple(int(key) for key, _ in groupby(line.tolist()) if key != blank) for line in best]


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many insertions, deletions and replacements make one from the other (Levenshtein, 1966)."""
    if one == other:
        return 0
    row = list(range(len(other) + 1))
    for number, left in enumerate(one, 1):
        above, row[0] = row[0], number
        for column, right in enumerate(other, 1):
            above, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, above + (left != right))
    return row[-1]


def blank_of(references: Answers, output: int) -> tuple[int, float]:
    """Return which of the first and last class is best more often, and in what share of the frames."""
    best = np.concatenate([sample[output].argmax(axis=-1).ravel() for sample in references])
    last = references[0][output].shape[-1] - 1
    shares = {blank: float((best == blank).mean()) if best.size else 0.0 for blank in (0, last)}
    blank = max(shares, key=lambda key: shares[key])
    return blank, shares[blank]


def recognise(references: Answers) -> SequenceAgreement | None:
    """Return the metric where an output looks like CTC's, see above."""
    for number, array in enumerate(references[0]):
        if array.ndim != 3 or array.shape[1] < FEWEST_FRAMES or array.shape[2] < FEWEST_CLASSES:
            continue
        if not np.issubdtype(array.dtype, np.floating) or not _are_distributions(references, number):
            continue
        blank, share = blank_of(references, number)
        if share >= BLANK_SHARE or (share >= LEAST_BLANK_SHARE and _is_commonest(references, number, blank)):
            return SequenceAgreement(number, blank)
    return None


def _are_distributions(references: Answers, output: int) -> bool:
    arrays = [sample[output] for sample in references]
    if all(is_distribution(array) for array in arrays):
        return True
    return all((array <= 1e-3).all() and is_distribution(np.exp(array)) for array in arrays)


def _is_commonest(references: Answers, output: int, blank: int) -> bool:
    best = np.concatenate([sample[output].argmax(axis=-1).ravel() for sample in references])
    counts = np.bincount(best)
    return bool(counts[blank] == counts.max())
