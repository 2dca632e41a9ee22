"""How channels pass through each kind of Keras layer. What is not in a table here freezes what it touches.

A rule takes the layer and the labels of what it reads, and returns where the layer's weights have channels; carriers
have no weights and return labels only. Each refuses with None what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from autoglm_edge_converter.roads.keras_channels import Axes, Channels, Cut, Labels

_ELEMENTWISE = frozenset(
    (
        *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "hard_silu"),
        *("hard_swish", "sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softplus", "softsign", "exponential", "mish"),
    )
)


def is_elementwise(activation: Any) -> bool:
    """Tell whether an activation treats each number alone. None is linear."""
    return activation is None or getattr(activation, "__name__", "") in _ELEMENTWISE


def _convolution(layer: Any, reads: Labels, channels: Channels) -> Cut | None:
    if layer.data_format != "channels_last" or layer.groups != 1:
        return None
    makes = channels.new(layer.filters)
    spatial: Axes = (None,) * layer.rank
    return Cut(layer, reads, makes, ((*spatial, reads, makes), *_bias(layer, makes)), "filters")


def _depthwise(layer: Any, reads: Labels, channels: Channels) -> Cut | None:
    if layer.data_format != "channels_last":
        return None
    makes = np.repeat(reads, layer.depth_multiplier)
    spatial: Axes = (None,) * layer.rank
    return Cut(layer, reads, makes, ((*spatial, reads, None), *_bias(layer, makes)))


def _separable(layer: Any, reads: Labels, channels: Channels) -> Cut | None:
    if layer.data_format != "channels_last":
        return None
    makes, between = channels.new(layer.filters), np.repeat(reads, layer.depth_multiplier)
    spatial: Axes = (None,) * layer.rank
    arrays = ((*spatial, reads, None), (*spatial, between, makes), *_bias(layer, makes))
    return Cut(layer, reads, makes, arrays, "filters")


def _dense(layer: Any, reads: Labels, channels: Channels) -> Cut | None:
    makes = channels.new(layer.units)
    return Cut(layer, reads, makes, ((reads, makes), *_bias(layer, makes)), "units")


def _bias(layer: Any, makes: Labels) -> tuple[Axes, ...]:
    return ((makes,),) if layer.use_bias else ()


def _normalisation(layer: Any, reads: Labels, channels: Channels) -> Cut | None:
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    if axis not in (-1, layer.input_spec.ndim - 1):
        return None
    return Cut(layer, reads, reads, ((reads,),) * len(layer.weights))


def _reshape(layer: Any, reads: Labels, channels: Channels) -> Cut | None:
    if not layer.target_shape or layer.target_shape[-1] != len(reads):
        return None
    return Cut(layer, reads, reads, (), "target_shape")


Rule = Callable[[Any, Labels, Channels], Cut | None]

WEIGHTED: dict[type, Rule] = {
    keras.layers.Conv1D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv3D: _convolution,
    keras.layers.DepthwiseConv1D: _depthwise,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv1D: _separable,
    keras.layers.SeparableConv2D: _separable,
    keras.layers.Dense: _dense,
    keras.layers.BatchNormalization: _normalisation,
    keras.layers.Reshape: _reshape,
}
"""By the exact class: a subclass may compute something else."""

_POOLS = tuple(
    getattr(keras.layers, f"{kind}{rank}D")
    for rank in (1, 2, 3)
    for kind in ("MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling")
)
_SPATIAL = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D, keras.layers.UpSampling2D)
_PLAIN = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
_MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
_OPERATORS = "keras.src.ops.numpy"


def carry(operation: Any, inputs: Sequence[Labels], tensors: Sequence[Any], channels: Channels) -> Labels | None:
    """Return the labels of what a layer without weights gives, None for one that is not known."""
    kind = type(operation)
    if kind in _PLAIN or (kind is keras.layers.Activation and is_elementwise(operation.activation)):
        return inputs[0]
    if kind in _POOLS or kind in _SPATIAL:
        return inputs[0] if operation.data_format == "channels_last" else None
    if kind is keras.layers.Flatten:
        return _flattened(operation, inputs[0], tensors[0].shape)
    if kind is keras.layers.Concatenate:
        return _concatenated(inputs, operation.axis % len(tensors[0].shape) == len(tensors[0].shape) - 1, channels)
    if _is_merge(kind):
        return _merged(inputs, channels)
    return None


def _is_merge(kind: type) -> bool:
    """Tell layers that merge, and operators as in `x + y`, which are no layers."""
    return kind.__name__ in _MERGES and (
        kind.__module__ == _OPERATORS or kind is getattr(keras.layers, kind.__name__, None)
    )


def _flattened(layer: Any, labels: Labels, shape: Sequence[int | None]) -> Labels | None:
    positions = [size for size in shape[1:-1] if size is not None]
    if layer.data_format != "channels_last" or len(positions) < len(shape) - 2:
        return None
    return np.tile(labels, int(np.prod(positions, dtype=np.int64)))


def _concatenated(inputs: Sequence[Labels], last: bool, channels: Channels) -> Labels | None:
    return np.concatenate(list(inputs)) if last else _merged(inputs, channels)


def _merged(inputs: Sequence[Labels], channels: Channels) -> Labels | None:
    if len({len(labels) for labels in inputs}) != 1:
        return None
    for labels in inputs[1:]:
        channels.join(inputs[0], labels)
    return inputs[0]
