"""Reading boxes out of SSD MobileNetV2's raw answers, and the metric that counts how many of them are kept.

The network gives, for each of 1917 anchors, an offset (ty, tx, th, tw) and 24 logits, of which the first is the
background. Source of anchors and decoding: Liu et al., "SSD: Single Shot MultiBox Detector", 2016, with the scales
(0.2 to 0.95, reduced boxes on the finest grid) and the factors (10, 10, 5, 5) of TensorFlow's detection API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

BOXES, CLASSES = "raw_outputs/box_encodings", "raw_outputs/class_predictions"
GRIDS = (19, 10, 5, 3, 2, 1)
SMALLEST, LARGEST = 0.2, 0.95
FACTORS = np.array([10, 10, 5, 5], np.float32)
SCORE, OVERLAP, SAME = 0.4, 0.6, 0.5
"""The least score, the overlap above which the weaker of two boxes goes, and that at which two are the same."""


@dataclass(frozen=True)
class Detections:
    """Boxes float32 [n, 4] as (top, left, bottom, right) in shares of the picture, scores [n], classes int [n]."""

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


@cache
def anchors() -> Floats:
    """Return the anchors as (y, x, height, width), float32 [1917, 4], in the order of the network's outputs."""
    scales = [SMALLEST + (LARGEST - SMALLEST) * level / (len(GRIDS) - 1) for level in range(len(GRIDS))] + [1.0]
    rows = []
    for level, grid in enumerate(GRIDS):
        scale, between = scales[level], (scales[level] * scales[level + 1]) ** 0.5
        shapes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)] + [(between, 1.0)]
        if level == 0:
            shapes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        centres = [((y + 0.5) / grid, (x + 0.5) / grid) for y in range(grid) for x in range(grid)]
        rows += [(*centre, size / ratio**0.5, size * ratio**0.5) for centre in centres for size, ratio in shapes]
    return np.array(rows, np.float32)


def decode(encodings: Floats, logits: Floats) -> Detections:
    """Return what is in one picture: float32 [1917, 4] and [1917, 24] to the boxes above `SCORE`, best first."""
    best = logits[:, 1:].max(axis=1)
    sure = np.flatnonzero(best >= np.log(SCORE / (1 - SCORE)))
    scores, kinds = 1 / (1 + np.exp(-best[sure])), logits[sure, 1:].argmax(axis=1).astype(np.int64) + 1
    centre, size = anchors()[sure, :2], anchors()[sure, 2:]
    offsets = encodings[sure] / FACTORS
    middle, extent = offsets[:, :2] * size + centre, np.exp(offsets[:, 2:]) * size
    boxes = np.concatenate([middle - extent / 2, middle + extent / 2], axis=1)
    kept = _suppressed(boxes, scores, kinds)
    return Detections(boxes[kept], scores[kept], kinds[kept])


def _suppressed(boxes: Floats, scores: Floats, kinds: npt.NDArray[np.int64]) -> list[int]:
    """Return the boxes that no better one of their class covers, best first."""
    left = np.argsort(-scores, kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[(kinds[left] != kinds[best]) | (overlaps(boxes[left], boxes[best]) < OVERLAP)]
    return kept


def overlaps(boxes: Floats, other: Floats) -> Floats:
    """Return the intersection of each box, [n, 4], with another, [4], over their union."""
    low, high = np.maximum(boxes[:, :2], other[:2]), np.minimum(boxes[:, 2:], other[2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (other[2:] - other[:2]).prod()
    found: Floats = shared / np.maximum(areas - shared, 1e-12)
    return found


def matched(expected: Detections, found: Detections) -> int:
    """Return how many expected boxes have one of their own of the same class, at an overlap of `SAME`."""
    free = np.ones(len(found.boxes), bool)
    for box, kind in zip(expected.boxes, expected.classes, strict=True):
        alike = np.where(free & (found.classes == kind), overlaps(found.boxes, box), 0)
        if alike.size and alike.max() >= SAME:
            free[alike.argmax()] = False
    return int((~free).sum())


Outputs = Mapping[str, npt.NDArray[np.float32]]


def detections(outputs: Outputs) -> Detections:
    """Return what is in the one picture of a sample's outputs."""
    return decode(outputs[BOXES][0], outputs[CLASSES][0])


_COUNTED: dict[bytes, tuple[int, int]] = {}


def _counted(expected: Outputs, found: Outputs) -> tuple[int, int]:
    """Return twice the boxes that both have, and the boxes of both. Intervals ask for the same samples many times."""
    digest = hashlib.blake2b(digest_size=16)
    for outputs in (expected, found):
        for name in (BOXES, CLASSES):
            digest.update(np.ascontiguousarray(outputs[name]))
    key = digest.digest()
    if key not in _COUNTED:
        one, other = detections(expected), detections(found)
        _COUNTED[key] = 2 * matched(one, other), len(one.boxes) + len(other.boxes)
    return _COUNTED[key]


def boxes_kept(expected: Sequence[Outputs], outputs: Sequence[Outputs], labels: object) -> float:
    """Return the boxes that both have as a share of those that either has (F1); 1 where there are none."""
    both, either = np.sum([_counted(one, other) for one, other in zip(expected, outputs, strict=True)], axis=0)
    return float(both / either) if either else 1.0
