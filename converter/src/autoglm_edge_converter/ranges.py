"""Calibration: what values each activation takes on the calibration samples, seen once and turned into ranges.

The sensitivity search builds many candidates; all of them use the same observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.tensors import Array, Feed

VALUES_PER_SAMPLE = 8192
"""How many values of a tensor are kept per sample for percentiles, at even distance."""

Range = tuple[float, float]


@dataclass
class Activation:
    """What was seen of one float tensor."""

    shape: tuple[int, ...]
    minima: list[float] = field(default_factory=list)
    maxima: list[float] = field(default_factory=list)
    channel_peaks: Array | None = None
    """Largest magnitude per channel, float32 [channels], for tensors with a known channel axis."""
    channel_means: Array | None = None
    """Sum over the samples of the mean per channel, float64 [channels], where the channel axis is known."""
    kept: list[Array] = field(default_factory=list)

    def see(self, values: Array, channel_axis: int | None) -> None:
        """Take note of one sample's values."""
        if values.size == 0:
            return
        self.minima.append(float(values.min()))
        self.maxima.append(float(values.max()))
        flat = values.reshape(-1)
        self.kept.append(flat[:: max(1, flat.size // VALUES_PER_SAMPLE)].copy())
        if channel_axis is not None:
            other = tuple(axis for axis in range(values.ndim) if axis != channel_axis % values.ndim)
            peaks = np.abs(values).max(axis=other)
            means = values.mean(axis=other, dtype=np.float64)
            self.channel_means = means if self.channel_means is None else self.channel_means + means
            self.channel_peaks = peaks if self.channel_peaks is None else np.maximum(self.channel_peaks, peaks)


Observation = Mapping[str, Activation]
"""By tensor name; tensors that are not float32 are absent."""


def min_max(activation: Activation) -> Range:
    """Return the range that holds everything seen."""
    return min(0.0, *activation.minima), max(0.0, *activation.maxima)


def percentile(activation: Activation) -> Range:
    """Return the range that holds what a typical sample holds, without the outliers of single samples.

    The median of the samples' extremes, widened to 99.99 % of all the values kept.
    """
    values = np.concatenate(activation.kept)
    low, high = np.quantile(values, (0.0001, 0.9999))
    low = min(float(low), float(np.median(activation.minima)))
    high = max(float(high), float(np.median(activation.maxima)))
    return min(0.0, low), max(0.0, high)


def least_error(activation: Activation) -> Range:
    """Return the range with the least squared error of rounding to 256 steps and of clipping, by grid search."""
    low, high = min_max(activation)
    if not high > low:
        return low, high
    counts, centres = _histogram(activation, low, high)

    def error(ends: Range) -> float:
        step = (ends[1] - ends[0]) / LEVELS
        clipped = np.clip(centres, *ends) - centres
        return float((counts * clipped**2).sum() + counts.sum() * step**2 / 12)

    grid = [(low * a, high * b) for a in _FACTORS for b in _FACTORS if high * b > low * a]
    return min(grid, key=error)


def entropy(activation: Activation) -> Range:
    """Return the range whose clipped and rounded histogram diverges least from what was seen (Kullback-Leibler).

    Source: Migacz, 8-bit inference with TensorRT (GTC 2017), on magnitudes.
    """
    low, high = min_max(activation)
    peak = max(-low, high)
    if not peak > 0:
        return low, high
    values = np.abs(np.concatenate(activation.kept))
    counts = np.histogram(values, bins=HISTOGRAM_BINS, range=(0, peak))[0].astype(np.float64)
    counts[0] = counts[1]  # what ReLU left at zero is exact at any limit
    limits = range(LEVELS // 2, HISTOGRAM_BINS + 1, LEVELS // 8)
    best = min(limits, key=lambda bins: _divergence(counts, bins, LEVELS // 2))
    limit = peak * best / HISTOGRAM_BINS
    return max(low, -limit), min(high, limit)


LEVELS = 255
HISTOGRAM_BINS = 2048
_FACTORS = tuple(float(factor) for factor in np.linspace(1.0, 0.2, 17))


def _histogram(activation: Activation, low: float, high: float) -> tuple[Array, Array]:
    counts, edges = np.histogram(np.concatenate(activation.kept), bins=HISTOGRAM_BINS, range=(low, high))
    return counts.astype(np.float64), (edges[:-1].astype(np.float64) + edges[1:]) / 2


def _divergence(counts: Array, bins: int, levels: int) -> float:
    kept = counts[:bins].copy()
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    group = np.arange(bins) * levels // bins
    filled = (kept > 0).astype(np.float64)
    totals = np.bincount(group, kept, levels)
    cells = np.bincount(group, filled, levels)
    spread = np.where(filled > 0, (totals / np.maximum(cells, 1))[group], 0.0)
    reference, spread = reference / max(reference.sum(), 1), spread / max(spread.sum(), 1)
    seen = reference > 0
    return float((reference[seen] * np.log(reference[seen] / np.maximum(spread[seen], 1e-9))).sum())


RANGES: dict[str, Callable[[Activation], Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "least-error": least_error,
    "entropy": entropy,
}


def own_noise(activation: Activation, ranges: str) -> float:
    """Return the power of a tensor's rounding error as a share of its own; `ranges` is a key of `RANGES`."""
    low, high = RANGES[ranges](activation)
    power = float(np.mean([np.square(values, dtype=np.float64).mean() for values in activation.kept]))
    return ((high - low) / LEVELS) ** 2 / 12 / power if power > 0 else 0.0


def observe(
    proto: onnx.ModelProto,
    tensors: Iterable[str],
    channel_axes: Mapping[str, int],
    feeds: Sequence[Feed],
    seen: Callable[[], None],
) -> dict[str, Activation]:
    """Run a float model over the calibration samples and note the values of the tensors named.

    `seen` is called after each sample. Errors of the runtime pass through.
    """
    wanted = list(dict.fromkeys(tensors))
    outer = {value.name for value in proto.graph.output}
    augmented = onnx.ModelProto()
    augmented.CopyFrom(proto)
    fed = {value.name for value in proto.graph.input}
    inner = [name for name in wanted if name not in outer and name not in fed]
    augmented.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    session = open_session(augmented.SerializeToString())
    answered = [name for name in wanted if name not in fed]
    activations: dict[str, Activation] = {}
    for feed in feeds:
        arrays = {name: np.asarray(array) for name, array in feed.items()}  # the runtime takes no numpy scalars
        values = dict(zip(answered, session.run(answered, arrays), strict=True)) if answered else {}
        values |= {name: arrays[name] for name in wanted if name in arrays}
        for name, array in values.items():
            if array.dtype == np.float32:
                activation = activations.setdefault(name, Activation(array.shape))
                activation.see(array, channel_axes.get(name))
        seen()
    return activations


def tensors_of(graph: onnx.GraphProto, nodes: Iterable[str]) -> list[str]:
    """Return the inputs and outputs, constants excluded, of the nodes named."""
    constants = {tensor.name for tensor in graph.initializer}
    chosen = set(nodes)
    touched = [name for node in graph.node if node.name in chosen for name in (*node.input, *node.output)]
    return [name for name in dict.fromkeys(touched) if name and name not in constants]
