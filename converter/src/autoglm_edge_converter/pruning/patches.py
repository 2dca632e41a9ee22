"""What a layer reads for one position of what it makes, as rows: a layer is then a matrix, `answers = rows @ matrix`.

Rows are ordered channel by channel, the taps of a kernel behind each other. Layers whose patches would be too wide
are seen channel by channel instead (one row per position of the input): exact for kernels of one tap, and for the
others the taps are then treated alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from autoglm_edge_converter.pruning.graph import integers, number, text
from autoglm_edge_converter.pruning.tracer import Layer
from autoglm_edge_converter.tensors import Array

Matrix = npt.NDArray[np.float64]

WIDEST = 1200
"""Most columns of a row: the second moments of one layer then take 12 MB, and solving for its weights half a second."""


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution over its spatial axes, and how much of a layer's patch is one channel's."""

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] | None = ()
    """Before and behind, all axes' befores first; None: so that the size stays (`SAME_UPPER` or `SAME_LOWER`)."""
    lower: bool = False

    @property
    def taps(self) -> int:
        """How many columns of a row belong to one channel."""
        return math.prod(self.kernel)


def window_of(node: onnx.NodeProto, layer: Layer) -> Window:
    """Return the window through which a layer reads; without a kernel where it reads position by position."""
    kernel = layer.weight_shape[2:]
    if layer.operator != "Conv" or math.prod(kernel) * layer.weight_shape[1] > WIDEST:
        return Window()
    axes = len(kernel)
    automatic = text(node, "auto_pad", "NOTSET")
    pads = integers(node, "pads") if automatic == "NOTSET" else (0,) * 2 * axes
    return Window(
        kernel,
        integers(node, "strides") or (1,) * axes,
        integers(node, "dilations") or (1,) * axes,
        None if automatic.startswith("SAME") else pads or (0,) * 2 * axes,
        automatic == "SAME_LOWER",
    )


def has_intercept(node: onnx.NodeProto, layer: Layer) -> bool:
    """Tell whether a layer can be given a bias that shifts what it makes by as much."""
    if layer.operator == "Gemm":
        return number(node, "alpha", 1.0) == 1.0 and number(node, "beta", 1.0) == 1.0
    return layer.operator == "Conv"


def rows_of(layer: Layer, window: Window, values: Array, rows: int, rng: np.random.Generator) -> Array:
    """Return at most `rows` rows, float32 [rows, channels x taps], at random positions of one activation."""
    if not layer.operator.startswith("Conv"):
        flat = values.reshape(-1, values.shape[-1])
        return flat[_some(len(flat), rows, rng)]
    if not window.kernel:
        moved = np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
        return moved[_some(len(moved), rows, rng)]
    windows = _windows(window, values)
    batch, channels, *spatial = windows.shape[: 2 + len(window.kernel)]
    chosen = _some(batch * math.prod(spatial), rows, rng)
    first, *rest = np.unravel_index(chosen, (batch, *spatial))
    channels_last = np.moveaxis(windows, 1, 1 + len(window.kernel))
    found: Array = channels_last[(first, *rest)].reshape(len(chosen), channels * window.taps)
    return found


def _some(total: int, wanted: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.sort(rng.choice(total, min(total, wanted), replace=False))


def _windows(window: Window, values: Array) -> Array:
    """Return a view [N, C, *positions, *kernel] of the padded input."""
    axes = len(window.kernel)
    extent = [(size - 1) * step + 1 for size, step in zip(window.kernel, window.dilations, strict=True)]
    pads = window.pads if window.pads is not None else _same(window, values.shape[2:], extent)
    padded = np.pad(values, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    view = np.lib.stride_tricks.sliding_window_view(padded, extent, tuple(range(2, 2 + axes)))
    steps = [slice(None, None, step) for step in window.strides]
    return view[(slice(None), slice(None), *steps, *(slice(None, None, step) for step in window.dilations))]


def _same(window: Window, sizes: tuple[int, ...], extent: list[int]) -> tuple[int, ...]:
    needed = [
        max(0, (-(-size // stride) - 1) * stride + reach - size)
        for size, stride, reach in zip(sizes, window.strides, extent, strict=True)
    ]
    small = [pad // 2 for pad in needed]
    large = [pad - half for pad, half in zip(needed, small, strict=True)]
    return (*large, *small) if window.lower else (*small, *large)


def to_matrix(layer: Layer, window: Window, weight: Array, part: int) -> Matrix:
    """Return the matrix of a layer, or of one of its groups of channels, float64 [channels x taps, columns]."""
    weight = weight.astype(np.float64)
    if layer.made_axis == 0:
        made = weight.shape[0] // layer.groups
        weight = weight[part * made : (part + 1) * made]
    if window.kernel:
        return weight.reshape(len(weight), -1).T
    return weight.swapaxes(0, layer.made_axis ^ 1).reshape(weight.shape[layer.made_axis ^ 1], -1)


def from_matrix(layer: Layer, window: Window, matrix: Matrix, weight: Array, part: int) -> None:
    """Write a matrix of the same shape back into a layer's weight."""
    if layer.made_axis == 0:
        made = weight.shape[0] // layer.groups
        weight = weight[part * made : (part + 1) * made]
    if window.kernel:
        weight[...] = matrix.T.reshape(weight.shape)
        return
    view = weight.swapaxes(0, layer.made_axis ^ 1)
    view[...] = matrix.reshape(view.shape)


def shift_of(layer: Layer, window: Window, intercept: Matrix, made: int) -> Matrix:
    """Return what an intercept, one per column, means for each channel made: the taps of a kernel are summed."""
    return intercept if window.kernel else intercept.reshape(made, -1).sum(axis=1)
