"""Noise of one output, over all of it and channel by channel.

A figure over a whole output hides the loss of a faint channel beside strong ones: a detector's box coordinates, in
pixels, outweigh its scores, in 0..1, by five orders of magnitude. So each channel is a slice with a noise of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.metrics.shares import Floats, Shares
from autoglm_edge_converter.tensors import Array
from autoglm_edge_protocol.golden import sqnr_db

MOST_SLICES = 65536
"""An axis longer than this is not one of channels."""


@dataclass(frozen=True)
class Slice:
    """One channel of an output."""

    axis: int
    index: int
    sqnr_db: float


def channel_axis(arrays: Sequence[Array]) -> int | None:
    """Return the axis of an output's channels; None where it has none.

    1 for four axes and more (batch, channels, space), the last for two (batch, features), and for three the shorter
    of the last two, because [N,C,A] and [N,A,C] are both in use. The axis has one length in all samples.
    """
    ndim = arrays[0].ndim if arrays else 0
    if ndim < 2:
        return None
    steady = [axis for axis in range(1, ndim) if 1 < arrays[0].shape[axis] <= MOST_SLICES and _same(arrays, axis)]
    if ndim == 3:
        return min(steady, key=lambda axis: (arrays[0].shape[axis], -axis), default=None)
    return 1 if 1 in steady else None


def _same(arrays: Sequence[Array], axis: int) -> bool:
    return all(array.ndim == arrays[0].ndim and array.shape[axis] == arrays[0].shape[axis] for array in arrays)


def powers(references: Sequence[Array], outputs: Sequence[Array], axis: int | None) -> tuple[Floats, Floats]:
    """Return the power of signal and of noise for each sample and slice, float64 [samples, slices].

    Where the reference is not finite nothing is counted; NaN and infinity in an output count as zeros.
    """
    found = [_powers(r, o, axis) for r, o in zip(references, outputs, strict=True)]
    return np.stack([signal for signal, _ in found]), np.stack([noise for _, noise in found])


def _powers(reference: Array, output: Array, axis: int | None) -> tuple[Floats, Floats]:
    if reference.shape != output.shape:
        raise ValueError(f"shapes {reference.shape} and {output.shape} differ")
    r, o = reference.astype(np.float64), output.astype(np.float64)
    usable = np.isfinite(r)
    if not usable.all() or not np.isfinite(o).all():
        r = np.where(usable, r, 0.0)
        o = np.where(usable, np.nan_to_num(o, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    np.subtract(r, o, out=o)
    return _square_sums(r, axis), _square_sums(o, axis)


def _square_sums(numbers: Floats, axis: int | None) -> Floats:
    letters = "abcdefghijklmnop"[: numbers.ndim]
    kept = "" if axis is None else letters[axis]
    with np.errstate(over="ignore"):  # of huge doubles; the sum is then infinite, which sqnr_db knows
        return np.atleast_1d(np.asarray(np.einsum(f"{letters},{letters}->{kept}", numbers, numbers), np.float64))


def agree_where_finite(references: Sequence[Array], outputs: Sequence[Array]) -> bool:
    """Tell whether outputs have the references' shapes, and are finite wherever those are."""
    for reference, output in zip(references, outputs, strict=True):
        if reference.shape != output.shape:
            return False
        if not np.issubdtype(output.dtype, np.floating):
            continue
        finite = np.isfinite(output)
        if not finite.all() and not finite[np.isfinite(reference)].all():
            return False
    return True


def worst_slice(signal: Floats, noise: Floats, axis: int | None) -> Slice | None:
    """Return the noisiest slice of what `powers` gave; None where there is only one slice or every one is identical.

    Slices that are zero in every reference are passed over: nobody can say how much of nothing was lost.
    """
    if axis is None or signal.shape[1] < 2:
        return None
    sums = zip(signal.sum(axis=0).tolist(), noise.sum(axis=0).tolist(), strict=True)
    found = [(sqnr_db(*pair), index) for index, pair in enumerate(sums) if pair[0] > 0]
    noisy = [(value, index) for value, index in found if value is not None]
    if not noisy:
        return None
    value, index = min(noisy)
    return Slice(axis, index, value)


def fidelity(signal: Floats, noise: Floats) -> Shares:
    """Return 1 - noise / signal as shares, a part for each slice: 0.99 is 20 dB in every one of them."""
    return Shares(signal - noise, signal, counted=False)
