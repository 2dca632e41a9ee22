"""Samples that are too much alike: a range or a figure that many of them give knows no more than one of them does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np

from autoglm_edge_converter.metrics.rows import is_distribution, largest
from autoglm_edge_converter.tensors import Array, Feed

VARIED = 0.5
"""Nothing is said where so many of the samples are different ones."""

MANY_NUMBERS = 16
"""Samples of fewer are readings of a few sensors or choices, of which there may be no more."""

MANY_SAMPLES = 10
"""Fewer may be of one class by chance."""


def notes_on_variety(inputs: Sequence[str], feeds: Sequence[Feed], answers: Mapping[str, Sequence[Array]]) -> list[str]:
    """Return what a user should know about samples that are alike in what goes in, or in what the original answers.

    Of `feeds` those `inputs` are looked at; `answers` are the original's by output, one for each of the feeds.
    """
    count = len(feeds)
    different = len({_digest(feed, inputs) for feed in feeds})
    numbers = sum(feeds[0][name].size for name in inputs) if feeds else 0
    if different < VARIED * count and numbers > MANY_NUMBERS:
        found = "are the same" if different == 1 else f"are copies of {different}"
        return [f"all {count} samples {found}: ranges and figures know no more than these, however many"]
    real = {name: values for name, values in answers.items() if np.issubdtype(values[0].dtype, np.floating)}
    same = {name: words for name, values in real.items() if (words := _same(values)) is not None}
    if count < MANY_SAMPLES or different == 1 or not real or len(same) < len(real):
        return []
    said = " and ".join(f"{words} in {name!r}" for name, words in same.items())
    return [
        f"the original answers {said} to all {count} samples, so that agreement with it shows little: check the "
        "pre-processing, and give samples of all kinds"
    ]


def _digest(feed: Feed, inputs: Sequence[str]) -> bytes:
    digest = sha256()
    for name in inputs:
        value = feed[name]
        digest.update(f"{value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()


def _same(values: Sequence[Array]) -> str | None:
    """Return in words what an output says to every sample; None where it does not always say the same."""
    first = values[0]
    if first.size == 0:
        return None
    if first.ndim == 2 and first.shape[-1] > 1 and is_distribution(first):
        found = largest(first)[0]
        return f"class {found}" if all((largest(value) == found).all() for value in values) else None
    return "the same" if all(np.array_equal(value, first) for value in values[1:]) else None
