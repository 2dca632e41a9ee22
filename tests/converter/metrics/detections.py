"""A detector's answers, made as YOLOv8 and later give them, with known boxes."""

from __future__ import annotations

import numpy as np

ANCHORS, CLASSES = 400, 2


def channels(boxes: int, seed: int = 0) -> np.ndarray:
    """Return float32 [1, 4 + classes, anchors]: well apart boxes with scores above 0.5, the rest near 0."""
    choice = np.random.default_rng(seed)
    answer = np.zeros((1, 4 + CLASSES, ANCHORS), np.float32)
    places = choice.permutation(ANCHORS)
    answer[0, 0] = 40.0 * (places % 20) + 20
    answer[0, 1] = 40.0 * (places // 20) + 20
    answer[0, 2:4] = choice.uniform(20, 36, (2, ANCHORS))
    answer[0, 4:] = choice.uniform(0, 0.1, (CLASSES, ANCHORS))
    found = choice.permutation(ANCHORS)[:boxes]
    answer[0, 4 + found % CLASSES, found] = choice.uniform(0.5, 0.95, boxes)
    return answer


def without(answer: np.ndarray, lost: int) -> np.ndarray:
    """Return the answer with the scores of its first so many boxes below the threshold, as coarse ranges do it."""
    damaged = answer.copy()
    found = np.flatnonzero(answer[0, 4:].max(axis=0) > 0.25)[:lost]
    damaged[0, 4:, found] *= 0.25
    return damaged
