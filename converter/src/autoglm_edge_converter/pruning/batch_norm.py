"""New statistics for BatchNormalization behind pruned layers.

A pruned layer's answers have another mean and variance; the normalisation that follows is given what changed, so that
what leaves it is centred and scaled as in the original. The trained statistics stay the base, because a few calibration
samples know the change better than the value.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.pruning.cut import kept
from autoglm_edge_converter.pruning.patches import Matrix
from autoglm_edge_converter.pruning.study import Study
from autoglm_edge_converter.tensors import Array


def renew_statistics(known: Study, model: onnx.ModelProto, removed: Collection[int]) -> None:
    """Rewrite mean and variance of every BatchNormalization whose channels are followed. `model` is changed."""
    cuts = {entry.tensor: entry.labels for entry in known.channels.cuts}
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization" and node.input[3] in cuts]
    if not nodes:
        return
    names = [node.input[0] for node in nodes]
    before = _statistics(known, known.proto, names)
    after = _statistics(known, model, names)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes:
        keep = kept(cuts[node.input[3]], removed)
        (mean, variance), (new_mean, new_variance) = before[node.input[0]], after[node.input[0]]
        shift = new_mean - mean[keep]
        factor = np.clip(new_variance / np.maximum(variance[keep], 1e-12), 0.25, 4.0)
        mean_tensor, variance_tensor = tensors[node.input[3]], tensors[node.input[4]]
        _store(mean_tensor, numpy_helper.to_array(mean_tensor) + shift)
        _store(variance_tensor, numpy_helper.to_array(variance_tensor) * factor)


def _store(tensor: onnx.TensorProto, values: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), tensor.name))


def _statistics(known: Study, model: onnx.ModelProto, names: Sequence[str]) -> dict[str, tuple[Matrix, Matrix]]:
    """Mean and variance of each channel of the tensors named, over the calibration samples."""
    sums: dict[str, Matrix] = {}
    counts = dict.fromkeys(names, 0)
    for values in known.run(model, names, known.feeds):
        for name in counts:
            flat = np.moveaxis(values[name], 1, 0).reshape(values[name].shape[1], -1).astype(np.float64)
            added = np.stack([flat.sum(axis=1), np.square(flat).sum(axis=1)])
            sums[name] = sums.get(name, np.zeros_like(added)) + added
            counts[name] += flat.shape[1]
    means = {name: total / counts[name] for name, total in sums.items()}
    return {name: (mean[0], np.maximum(mean[1] - mean[0] ** 2, 0)) for name, mean in means.items()}
