"""Calibration: what values each activation takes on the calibration samples, seen once and turned into ranges.

The sensitivity search builds many candidates; all of them use the same observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.worker import open_session

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


RANGES: dict[str, Callable[[Activation], Range]] = {"min-max": min_max, "percentile": percentile}


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
        values = dict(zip(answered, session.run(answered, feed), strict=True)) if answered else {}
        values |= {name: feed[name] for name in wanted if name in feed}
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
