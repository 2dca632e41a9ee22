"""Splitting the samples: what calibrates, what ranks, what says yes or no, and what gives the reported quality.

The four share nothing where there are `FEW` samples or more. With fewer, a fourth part would be too small to say
anything: those that say yes or no then give the reported quality too, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.errors import TooFewSamples

FEWEST = 3
FEW = 200
"""Below this many samples the last two parts are one, the reported quality is coarse, and the notes say so."""


@dataclass(frozen=True)
class Split:
    """Indices into the samples, each part sorted; the parts are disjoint but for the last two where `shared`."""

    calibration: tuple[int, ...]
    """Give the ranges."""
    search: tuple[int, ...]
    """Rank and tune the candidates."""
    acceptance: tuple[int, ...]
    """Say yes or no to few candidates, in the order in which they are preferred; hold the golden set."""
    evaluation: tuple[int, ...]
    """Give the reported quality of what is shipped: nothing is ranked, tuned or preferred by them."""

    @property
    def shared(self) -> bool:
        """True: there are too few samples to keep the last two parts apart."""
        return self.acceptance == self.evaluation

    @property
    def used(self) -> tuple[int, ...]:
        """All indices that any part holds, sorted."""
        return tuple(sorted({*self.calibration, *self.search, *self.acceptance, *self.evaluation}))

    def moved(self, place: Mapping[int, int]) -> Split:
        """Return the same parts with each index replaced by its place."""
        parts = (self.calibration, self.search, self.acceptance, self.evaluation)
        return Split(*(tuple(place[index] for index in part) for part in parts))


@dataclass(frozen=True)
class SplitLimits:
    """Most samples a part may hold: more cost time and change little."""

    calibration: int = 256
    search: int = 256
    acceptance: int = 256
    evaluation: int = 512
    bytes_in_all: int = 256 * 1024 * 1024


def split(
    count: int,
    seed: int,
    sample_bytes: int = 0,
    limits: SplitLimits = SplitLimits(),
    classes: Sequence[int] | None = None,
) -> Split:
    """Split `count` samples of about `sample_bytes` bytes each: a fifth calibrates, the rest is three equal parts.

    Ranges need the fewest; the others can keep a budget of 1 % with one wrong answer only where they hold 100.
    Of fewer than `FEW` samples, 30 % calibrate, 30 % rank, and 40 % both accept and evaluate.

    With `classes`, one for each sample, every part holds each class in about the share that it has of all.
    Raises TooFewSamples.
    """
    if count < FEWEST:
        raise TooFewSamples(count, FEWEST)
    usable = count if not sample_bytes else max(FEWEST, min(count, limits.bytes_in_all // sample_bytes))
    choice = np.random.default_rng(seed)
    order = [int(index) for index in choice.permutation(count)]
    order = (_interleaved(order, classes, choice) if classes is not None else order)[:usable]
    bounds = limits.calibration, limits.search, limits.acceptance, limits.evaluation
    parts = _cut(order, usable)
    return Split(*(tuple(sorted(part[:bound])) for part, bound in zip(parts, bounds, strict=True)))


def _cut(order: Sequence[int], usable: int) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
    if usable >= FEW:
        start = usable // 5
        size = (usable - start) // 3
        middle, end = start + size, start + 2 * size
        return order[:start], order[start:middle], order[middle:end], order[end:]
    size = max(1, round(0.3 * usable))
    held_back = order[2 * size :]
    return order[:size], order[size : 2 * size], held_back, held_back


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
    if parts.shared:
        few = f"only {count} samples" if count < FEW else f"only {len(parts.used)} samples fit into memory"
        notes.append(
            f"{few}: the same {len(parts.evaluation)} of them decide what is shipped and give its quality, which is "
            f"known coarsely (see its interval) and may look a little better than it is; give {FEW} or more to trust it"
        )
    if len(parts.used) < count:
        notes.append(f"{len(parts.used)} of {count} samples were used, picked at random with the seed")
    return tuple(notes)
