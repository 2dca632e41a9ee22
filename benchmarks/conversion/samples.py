"""Samples as the tools want them, and how far a variant's answers to them are from the original's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from models import Answers, Feed

from autoglm_edge_protocol import golden


def save_feeds(path: Path, feeds: Sequence[Feed]) -> None:
    arrays = {f"{number}.{name}": array for number, feed in enumerate(feeds) for name, array in feed.items()}
    np.savez(path, allow_pickle=False, **arrays)


def save_folder(folder: Path, feeds: Sequence[Feed]) -> None:
    """Write one file a sample, which our converter takes whatever the model's batch axis."""
    folder.mkdir()
    for number, feed in enumerate(feeds):
        np.savez(folder / f"{number:05}.npz", allow_pickle=False, **feed)


def noise_db(references: Answers, answers: Answers) -> float | None:
    """Return the SQNR of the worst float output; infinite where all are identical."""
    losses = []
    for number in range(len(references[0])):
        expected = [sample[number] for sample in references]
        if expected[0].dtype.kind == "f":
            found = golden.compare(expected, [sample[number] for sample in answers]).sqnr_db
            losses.append(math.inf if found is None else found)
    return min(losses, default=None)
