"""Pruning a model to given widths: channels are taken out and what is left is fitted to answer as before.

One refit per layer comes from the moments of the original (`refit`). With `propagate`, layers are then fitted once more
in the order of the graph on what the pruned layers before them really give, so that errors are made up for and not
handed on; ThiNet and "Channel pruning" (see `refit`) do the same. BatchNormalization gets new statistics at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.pruning.batch_norm import renew_statistics
from autoglm_edge_converter.pruning.cut import cut, kept
from autoglm_edge_converter.pruning.moments import Reader
from autoglm_edge_converter.pruning.patches import Matrix, from_matrix, shift_of, to_matrix
from autoglm_edge_converter.pruning.refit import refit, solve
from autoglm_edge_converter.pruning.study import MULTIPLE, Study, study
from autoglm_edge_converter.tensors import Array, Feed

PROPAGATION_WORK = 2e12
"""Most multiplications that fitting once more may cost: about two minutes of one core."""


@dataclass(frozen=True)
class GroupCut:
    """What became of one group of coupled channels."""

    name: str
    layers: tuple[str, ...]
    before: int
    after: int
    reason: str | None
    """Why (some of) its channels cannot be pruned, None where they can."""


@dataclass(frozen=True)
class PrunedModel:
    """A pruned float model; fractions are of the original's."""

    proto: onnx.ModelProto
    weights_removed: float
    multiplications_removed: float
    groups: tuple[GroupCut, ...]


def prune(
    proto: onnx.ModelProto, feeds: Sequence[Feed], ratios: Mapping[str, float], multiple: int = MULTIPLE, seed: int = 0
) -> PrunedModel:
    """Take a fraction of the channels out of each group named (see `find_groups`), rounded to whole multiples.

    `feeds` are calibration samples. Raises ValueError for a group that is not there and without samples.
    """
    known = study(proto, feeds, seed, multiple)
    missing = sorted(set(ratios) - {group.name for group in known.groups})
    if missing:
        raise ValueError(f"no group of channels is called {missing[0]!r}")
    widths = {}
    for group in known.groups:
        allowed = (group.width, *known.widths(group))
        wanted = group.width * (1 - ratios.get(group.name, 0.0))
        widths[group.name] = min(allowed, key=lambda width: abs(width - wanted))
    return prune_to(known, widths)


def prune_to(known: Study, widths: Mapping[str, int], propagate: bool = True) -> PrunedModel:
    """Prune a model that was studied, to the widths given by group. The same widths give the same bytes."""
    removed = known.removed(widths)
    model = cut(_refitted(known, removed), known.channels, removed)
    if removed and propagate and _work(known) <= PROPAGATION_WORK:
        _propagate(known, model, removed)
    if removed:
        renew_statistics(known, model, removed)
    before, after = _weights(known.proto), _weights(model)
    return PrunedModel(
        model,
        1 - after / before if before else 0.0,
        1 - known.multiplications(removed) / max(1.0, known.multiplications()),
        tuple(
            GroupCut(group.name, group.layers, group.width, widths.get(group.name, group.width), group.reason)
            for group in known.groups
        ),
    )


def _weights(proto: onnx.ModelProto) -> int:
    floats = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in floats)


def _work(known: Study) -> float:
    return known.multiplications() * len(known.feeds) * len(known.readers)


def _refitted(known: Study, removed: Collection[int]) -> onnx.ModelProto:
    """Return a copy of the whole graph in which the weights of what is kept make up for what will go."""
    model = onnx.ModelProto()
    model.CopyFrom(known.proto)
    for reader in known.readers:
        assert reader.layer.inputs is not None
        if not reader.fits or kept(reader.layer.inputs, removed).all():
            continue
        weight, bias = _parameters(model, reader)
        for part, keep in enumerate(np.split(kept(reader.layer.inputs, removed), reader.layer.groups)):
            matrix = to_matrix(reader.layer, reader.window, weight, part)
            moments = known.moments[reader.layer.node][part]
            fitted, intercept = refit(moments, matrix, np.repeat(keep, reader.window.taps))
            _write(reader, fitted, intercept, weight, bias, part)
        _store(model, reader, weight, bias)
    return model


def _propagate(known: Study, model: onnx.ModelProto, removed: Collection[int]) -> None:
    """Fit the layers of the cut model in turn, each on what those before it now give."""
    for reader in known.readers:
        if not reader.fits:
            continue
        labels, made = reader.layer.inputs, reader.layer.outputs
        assert labels is not None
        original_weight, original_bias = _parameters(known.proto, reader)
        weight, _ = _parameters(model, reader)
        stays = kept(made, removed)
        small = replace(
            reader,
            layer=replace(
                reader.layer,
                inputs=labels[kept(labels, removed)],
                outputs=made[stays],
                weight_shape=tuple(weight.shape),
            ),
        )
        bias = None if original_bias is None else original_bias[stays].copy()
        for part in range(reader.layer.groups):
            now, cross = _cross_moments(known, model, reader, part)
            wanted = np.compress(stays, original_weight, axis=reader.layer.made_axis)
            target = to_matrix(replace(reader.layer, outputs=made[stays]), reader.window, wanted, part)
            solution = solve(now, cross @ target, to_matrix(small.layer, reader.window, weight, part))
            _write(small, solution[:-1], solution[-1], weight, bias, part)
        _store(model, reader, weight, bias)


def _cross_moments(known: Study, model: onnx.ModelProto, reader: Reader, part: int) -> tuple[Matrix, Matrix]:
    """Second moments of what the layer reads now, and of that with what it read in the original."""
    wanted = reader.rows_per_sample(len(known.feeds))
    now: Matrix | float = 0.0
    cross: Matrix | float = 0.0
    count = 0
    runs = zip(
        known.run(model, [reader.input], known.feeds), known.run(known.proto, [reader.input], known.feeds), strict=True
    )
    for sample, (pruned, original) in enumerate(runs):
        rows = reader.rows(pruned[reader.input], sample, wanted, part)
        now = now + rows.T @ rows
        cross = cross + rows.T @ reader.rows(original[reader.input], sample, wanted, part)[:, :-1]
        count += len(rows)
    return np.asarray(now / count), np.asarray(cross / count)


def _parameters(model: onnx.ModelProto, reader: Reader) -> tuple[Array, Array | None]:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = numpy_helper.to_array(tensors[reader.layer.weight]).copy()
    bias = numpy_helper.to_array(tensors[reader.bias]).copy() if reader.bias else None
    return weight, bias


def _write(reader: Reader, matrix: Matrix, intercept: Matrix, weight: Array, bias: Array | None, part: int) -> None:
    """Put one group's matrix and shift into weight and bias."""
    from_matrix(reader.layer, reader.window, matrix, weight, part)
    if bias is not None:
        made = len(bias) // reader.layer.groups
        bias[part * made : (part + 1) * made] += shift_of(reader.layer, reader.window, intercept, made).astype(
            bias.dtype
        )


def _store(model: onnx.ModelProto, reader: Reader, weight: Array, bias: Array | None) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == reader.layer.weight:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight), tensor.name))
        elif bias is not None and tensor.name == reader.bias:
            tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
