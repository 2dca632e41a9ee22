"""Samples that are too much alike: a range or a figure that many of them give knows no more than one of them does."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics.rows import TOP1, largest, metric_of
from autoglm_edge_converter.tensors import Array, Feed

VARIED = 0.5
"""So many of the samples differ from all others where nothing is said."""


def notes_on_variety(
    inputs: Sequence[str], feeds: Sequence[Feed], outputs: Sequence[str], answers: Answers
) -> list[str]:
    """Return what a user should know about samples that are alike in what goes in, or in what the original answers.

    `answers`: the original's, one of `outputs` for each of `feeds`; of the feeds `inputs` are looked at.
    """
    if len(feeds) < 2:
        return []
    constant = [name for name in inputs if _is_constant([feed[name] for feed in feeds])]
    notes = [
        f"input {name!r} holds nothing but {feeds[0][name].flat[0]:g} in all samples: the ranges of what follows from "
        "it are no ranges of use"
        for name in constant
    ]
    different = len({_digest(feed, inputs) for feed in feeds})
    if different < VARIED * len(feeds) and not constant:
        found = "are the same" if different == 1 else f"are copies of {different}"
        notes.append(f"all {len(feeds)} samples {found}: ranges and figures know no more than these, however many")
    if different > 1:
        notes += [
            f"the original answers {what} in {name!r} to all {len(feeds)} samples, so that agreement with it shows "
            "little: check the pre-processing, and give samples of all kinds"
            for number, name in enumerate(outputs)
            if (what := _same([answer[number] for answer in answers])) is not None
        ]
    return notes


def _is_constant(values: Sequence[Array]) -> bool:
    """Whether an input of many real numbers is one number; one that is whole, or single, may be a setting."""
    first = values[0]
    if not np.issubdtype(first.dtype, np.floating) or first.size < 2:
        return False
    return all(bool((value == first.flat[0]).all()) for value in values)


def _digest(feed: Feed, inputs: Sequence[str]) -> bytes:
    digest = sha256()
    for name in inputs:
        value = feed[name]
        digest.update(f"{value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()


def _same(values: Sequence[Array]) -> str | None:
    """Return in words what an output says to every sample; None where it does not always say the same."""
    if not np.issubdtype(values[0].dtype, np.floating) or values[0].size == 0:
        return None
    if metric_of(values) == TOP1:
        classes = {int(row) for value in values for row in largest(value)}
        return f"class {classes.pop()}" if len(classes) == 1 else None
    return "the same" if all(np.array_equal(value, values[0]) for value in values[1:]) else None
