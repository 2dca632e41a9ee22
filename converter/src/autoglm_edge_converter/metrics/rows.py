"""Metrics of one output on its own: which suits it, and agreement row by row or element by element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.metrics.shares import Shares
from autoglm_edge_converter.tensors import Array

TOP1, FIDELITY, EQUAL = "top1-agreement", "fidelity", "equal"

_NARROWEST_EMBEDDING = 16


def metric_of(references: Sequence[Array]) -> str:
    """Return the metric that suits one output, seen from the original's answers."""
    first = references[0]
    if not np.issubdtype(first.dtype, np.floating):
        return EQUAL
    if first.ndim < 2 or first.shape[-1] < 2 or first.size == 0:
        return FIDELITY
    if first.ndim == 2:
        return FIDELITY if is_embedding(first) else TOP1
    return TOP1 if is_distribution(first) else FIDELITY


def is_distribution(rows: Array) -> bool:
    """Tell whether every row (last axis) is of positive numbers that add up to one.

    Half precision leaves a relative error of 0.0005 on each, all of which may be of one sign.
    """
    within = 1e-2 if rows.dtype == np.float16 else 1e-3
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1, dtype=np.float64), 1.0, atol=within))


def is_embedding(rows: Array) -> bool:
    """Tell whether every row is a vector of length one, as wide as embeddings are, with negative numbers in it."""
    if rows.shape[-1] < _NARROWEST_EMBEDDING or not (rows < 0).any():
        return False
    return bool(np.allclose(np.linalg.norm(rows.astype(np.float64), axis=-1), 1.0, atol=1e-3))


def largest(array: Array) -> npt.NDArray[np.int64]:
    """Return the index of the largest entry of each row (last axis), flattened; NaN is never the largest."""
    if array.ndim == 0 or array.shape[-1] < 1 or array.size == 0:
        return np.zeros(0, np.int64)
    rows = np.nan_to_num(array.reshape(-1, array.shape[-1]), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    return np.asarray(rows.argmax(axis=1), np.int64)


def top1_shares(references: Sequence[Array], outputs: Sequence[Array]) -> Shares:
    """Return the fraction of rows with the same largest entry."""
    return matches([largest(array) for array in references], [largest(array) for array in outputs])


def equal_shares(references: Sequence[Array], outputs: Sequence[Array]) -> Shares:
    """Return the fraction of equal elements."""
    return matches([array.ravel() for array in references], [array.ravel() for array in outputs])


def matches(references: Sequence[Array], outputs: Sequence[Array]) -> Shares:
    """Return the fraction of equal elements of flat arrays, a trial each. Arrays of a sample have one length."""
    hits = [float(np.count_nonzero(r == o)) for r, o in zip(references, outputs, strict=True)]
    trials = [float(r.size) for r in references]
    return Shares(np.array(hits)[:, None], np.array(trials)[:, None])
