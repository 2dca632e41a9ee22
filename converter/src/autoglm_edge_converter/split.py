"""Splitting the samples: what calibrates, what ranks candidates and what gives the reported quality never overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.errors import TooFewSamples

FEWEST = 3
FEW = 100
"""Below this many samples the reported quality is coarse, and the notes say so."""


@dataclass(frozen=True)
class Split:
    """Indices into the samples, each part sorted; the parts are disjoint."""

    calibration: tuple[int, ...]
    search: tuple[int, ...]
    evaluation: tuple[int, ...]

    @property
    def used(self) -> tuple[int, ...]:
        """All indices that any part holds, sorted."""
        return tuple(sorted((*self.calibration, *self.search, *self.evaluation)))

    def moved(self, place: Mapping[int, int]) -> Split:
        """Return the same parts with each index replaced by its place."""
        parts = (self.calibration, self.search, self.evaluation)
        return Split(*(tuple(place[index] for index in part) for part in parts))


@dataclass(frozen=True)
class SplitLimits:
    """Most samples a part may hold: more cost time and change little."""

    calibration: int = 256
    search: int = 256
    evaluation: int = 512
    bytes_in_all: int = 256 * 1024 * 1024


def split(
    count: int,
    seed: int,
    sample_bytes: int = 0,
    limits: SplitLimits = SplitLimits(),
    classes: Sequence[int] | None = None,
) -> Split:
    """Split `count` samples of about `sample_bytes` bytes each: 30 % calibrate, 30 % rank, 40 % evaluate.

    With `classes`, one for each sample, every part holds each class in about the share that it has of all.
    Raises TooFewSamples.
    """
    if count < FEWEST:
        raise TooFewSamples(count, FEWEST)
    usable = count if not sample_bytes else max(FEWEST, min(count, limits.bytes_in_all // sample_bytes))
    choice = np.random.default_rng(seed)
    order = [int(index) for index in choice.permutation(count)]
    order = (_interleaved(order, classes, choice) if classes is not None else order)[:usable]
    calibration = max(1, round(0.3 * usable))
    search = max(1, round(0.3 * usable))
    parts = order[:calibration], order[calibration : calibration + search], order[calibration + search :]
    bounds = limits.calibration, limits.search, limits.evaluation
    return Split(*(tuple(sorted(part[:bound])) for part, bound in zip(parts, bounds, strict=True)))


def _interleaved(order: Sequence[int], classes: Sequence[int], choice: np.random.Generator) -> list[int]:
    """Spread every class evenly over the order, so that any stretch of it holds all of them in proportion."""
    members: dict[int, list[int]] = {}
    for index in order:
        members.setdefault(classes[index], []).append(index)
    places: list[tuple[float, int]] = []
    for _, indices in sorted(members.items()):
        offset = float(choice.random())
        places += [((rank + offset) / len(indices), index) for rank, index in enumerate(indices)]
    return [index for _, index in sorted(places)]


def notes_on(parts: Split, count: int) -> tuple[str, ...]:
    """Return what a reader of the figures should know about the amount of data."""
    notes = []
    if count < FEW:
        notes.append(
            f"only {count} samples: quality is known on {len(parts.evaluation)} of them, give {FEW} or more to trust it"
        )
    if len(parts.used) < count:
        notes.append(f"{len(parts.used)} of {count} samples were used, picked at random with the seed")
    return tuple(notes)
