"""Reading boxes from a detector's answers, and which layout they have.

Layouts, each with a free number of anchors A and of classes K; boxes are corners (x1, y1, x2, y2) or centre and size:

    channels   [N, 4+K, A]          YOLOv8 and later: coordinates, then a score for each class
    objects    [N, A, 5+K]          YOLOv5 and v7: coordinates, objectness, then scores of the classes
    rows       [N, A, 6]            after suppression, as YOLOv10 gives them: corners, score, class
    pair       [N, A, 4] and [N, A] or [N, A, K]   boxes in one output, scores in another (SSD, DETR)

An answer is taken for boxes on evidence only: four columns that can be coordinates (finite, of positive sizes, not
distributions over four classes), scores in 0..1 of which some reach the threshold; where suppression is still to come,
also at least 100 anchors, twice as many as channels, whose centres are spread over the picture and of which at most a
fifth reach the threshold. Rows that are distributions (see `sequence`) are never boxes. Anything less clear is left
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics.rows import is_distribution
from autoglm_edge_converter.metrics.shares import Floats
from autoglm_edge_converter.tensors import Array

FEWEST_ANCHORS = 100
LARGEST_SHARE = 0.2
"""Of the anchors that may reach the threshold before suppression: most of a picture is background."""
SCORE_THRESHOLD = 0.25
LEAST_SPREAD = 0.2
"""Of the picture that the middle 90 % of the anchors' centres span. Class probabilities that are read as centres are
near 0 but for one or two of them, however large those are."""

Layout = Literal["channels", "objects", "rows", "pair"]


@dataclass(frozen=True)
class Boxes:
    """Detections of one image: corners float64 [n, 4], scores float64 [n], classes int64 [n]."""

    corners: Floats
    scores: Floats
    classes: Array


@dataclass(frozen=True)
class Reading:
    """How a model's answers are read as boxes."""

    layout: Layout
    output: int
    """Where the boxes are."""
    scores: int | None = None
    """Where the scores are, for a pair."""
    centred: bool = True
    """Centre and size instead of corners."""

    def __str__(self) -> str:
        form = "centre and size" if self.centred else "corners"
        return f"boxes as {self.layout} of output {self.output}, {form}"


def read(reading: Reading, answer: Sequence[Array], threshold: float) -> list[Boxes]:
    """Return the boxes of each image of a sample whose score reaches the threshold. NaN reaches none."""
    coordinates, scores = _parts(reading, answer)
    return [_image(reading, box, score, threshold) for box, score in zip(coordinates, scores, strict=True)]


def _parts(reading: Reading, answer: Sequence[Array]) -> tuple[Floats, Floats]:
    """Return coordinates [N, A, 4] and scores [N, A, K]; for rows the last column is the class."""
    array = np.asarray(answer[reading.output], np.float64)
    if reading.layout == "pair":
        assert reading.scores is not None
        scores = np.asarray(answer[reading.scores], np.float64)
        boxes = array.reshape(-1, *array.shape[-2:])
        return boxes, scores.reshape(len(boxes), boxes.shape[1], -1)
    if reading.layout == "channels":
        array = array.transpose(0, 2, 1)
    if reading.layout == "objects":
        return array[..., :4], array[..., 4:5] * array[..., 5:]
    return array[..., :4], array[..., 4:]


def _image(reading: Reading, boxes: Floats, scores: Floats, threshold: float) -> Boxes:
    if reading.layout == "rows":
        best, classes = scores[:, 0], np.rint(scores[:, 1]).astype(np.int64)
    else:
        best, classes = scores.max(axis=1), scores.argmax(axis=1)
    kept = best >= threshold
    corners = boxes[kept]
    if reading.centred:
        corners = np.concatenate([corners[:, :2] - corners[:, 2:] / 2, corners[:, :2] + corners[:, 2:] / 2], axis=1)
    return Boxes(corners, best[kept], classes[kept])


def recognise(references: Answers, threshold: float = SCORE_THRESHOLD) -> Reading | None:
    """Return how the original's answers are to be read as boxes, None where they do not look like boxes."""
    candidates = [*_single(references), *_pairs(references)]
    return next((found for found in candidates if _plausible(found, references, threshold)), None)


def _single(references: Answers) -> list[Reading]:
    found: list[Reading] = []
    for number, array in enumerate(references[0]):
        if array.ndim != 3 or not np.issubdtype(array.dtype, np.floating):
            continue
        if array.shape[2] == 6:
            found.append(Reading("rows", number, centred=False))
        if array.shape[2] >= 6:
            found.append(Reading("objects", number))
        if array.shape[1] >= 5:
            found.append(Reading("channels", number))
    return found


def _pairs(references: Answers) -> list[Reading]:
    floats = {n: a for n, a in enumerate(references[0]) if np.issubdtype(a.dtype, np.floating) and a.ndim >= 2}
    found: list[Reading] = []
    for number, boxes in floats.items():
        if boxes.shape[-1] != 4 or boxes.ndim > 3:
            continue
        for other, scores in floats.items():
            if other != number and scores.shape[: boxes.ndim - 1] == boxes.shape[:-1] and scores.ndim <= boxes.ndim:
                found += [Reading("pair", number, other, centred=centred) for centred in (False, True)]
    return found


def _plausible(reading: Reading, references: Answers, threshold: float) -> bool:
    reaching = anchors = 0
    for answer in references:
        if answer[reading.output].size == 0:
            continue  # nothing was found in this sample
        if is_distribution(answer[reading.output]):
            return False
        coordinates, scores = _parts(reading, answer)
        if not (_are_boxes(coordinates, reading.centred) and _are_scores(reading, answer, scores)):
            return False
        if reading.layout in ("channels", "objects") and not _raw(coordinates, scores):
            return False
        reaching += sum(len(image.scores) for image in read(reading, answer, threshold))
        anchors += scores.shape[0] * scores.shape[1]
    raw = reading.layout in ("channels", "objects")
    return 0 < reaching <= (LARGEST_SHARE if raw else 1.0) * anchors


def _raw(coordinates: Floats, scores: Floats) -> bool:
    anchors, channels = coordinates.shape[1], scores.shape[2] + 4
    return anchors >= max(FEWEST_ANCHORS, 2 * channels) and _are_spread(coordinates)


def _are_spread(coordinates: Floats) -> bool:
    """Tell whether the anchors' centres cover the picture both ways."""
    centres = coordinates[..., :2]
    low, high = np.quantile(centres, (0.05, 0.95), axis=1)
    extent = np.abs(centres).max(axis=1)
    return bool((high - low >= LEAST_SPREAD * extent).all() and (extent > 0).all())


def _are_boxes(coordinates: Floats, centred: bool) -> bool:
    if not np.isfinite(coordinates).all():
        return False
    sizes = coordinates[..., 2:] if centred else coordinates[..., 2:] - coordinates[..., :2]
    return bool((sizes >= -1e-3).all()) and bool((sizes > 0).any())


def _are_scores(reading: Reading, answer: Sequence[Array], scores: Floats) -> bool:
    if reading.layout == "objects":
        scores = np.asarray(answer[reading.output], np.float64)[..., 4:]
    if reading.layout == "rows":
        classes = scores[..., 1]
        if bool((classes != np.rint(classes)).any()):
            return False
        scores = scores[..., :1]
    return scores.size > 0 and bool(((scores >= -1e-3) & (scores <= 1 + 1e-3)).all())
