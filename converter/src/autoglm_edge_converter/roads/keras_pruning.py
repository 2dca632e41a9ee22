"""Pruning a Keras model with training between the steps: `--finetune module.py:function` with `--prune 0.4`.

Whole channels go, the least important of all layers first: by the norm of all weights that make and read a channel,
and the scale of its normalisation, each relative to the mean of its layer (group pruning as in DepGraph, Fang et al.,
CVPR 2023; scales as in Network Slimming, Liu et al., ICCV 2017). Inputs and outputs keep their width. How good the
result is, the caller measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.errors import BadOption, UserCodeFailed
from autoglm_edge_converter.roads.channel_widths import Candidates
from autoglm_edge_converter.roads.finetuning import Finetuning
from autoglm_edge_converter.roads.keras_channels import Cut, Labels, Map
from autoglm_edge_converter.roads.keras_walk import plain, rebuild, walk
from autoglm_edge_converter.roads.pruning_schedule import channel_ratio
from autoglm_edge_converter.roads.tensorflow_call import check_finite

Shapes = Mapping[str, Sequence[int]]
Kept = npt.NDArray[np.bool_]
"""Which labels stay, bool [labels]."""


def prune(model: Any, finetuning: Finetuning, shapes: Shapes, step: Callable[[str], None]) -> tuple[Any, float]:
    """Return a pruned, trained copy of a model, and the fraction of the multiplications that is gone.

    `shapes` gives the size of free axes by the input's name. Raises BadOption where nothing can be pruned,
    UserCodeFailed, BrokenWeights.
    """
    train = finetuning.trainer(keras.Model, "the model")
    pruned = copied(plain(model))
    before = multiplications(walk(pruned, shapes))
    removed = 0.0
    for number, target in enumerate(finetuning.schedule.targets(), 1):
        pruned, removed = reach(pruned, shapes, before, target)
        if removed <= 0:
            raise BadOption("--prune: no channels of this model can be taken out: leave --finetune away")
        keras.utils.set_random_seed(number)
        trained = plain(train(pruned))
        _check_ports(pruned, trained, finetuning.reference)
        pruned = trained
        check_finite(pruned.variables)
        step(f"pruned {removed:.0%} of the multiplications, trained ({number} of {finetuning.schedule.steps})")
    return pruned, removed


def copied(model: Any) -> Any:
    """Return a plain model with weights of its own."""
    return rebuild(model, Map(), np.zeros(0, bool))


def reach(model: Any, shapes: Shapes, before: float, target: float) -> tuple[Any, float]:
    """Return a plain model with as few channels less as bring it to the target, and the fraction that is gone.

    The fraction is of `before`, multiplications for one sample. Where all that can go is not enough, all goes.
    """
    study = Study.of(walk(model, shapes))

    def removed(ratio: float) -> float:
        return 1 - multiplications(study.map, study.kept(ratio)) / before

    ratio = 0.0 if removed(0.0) >= target else channel_ratio(target, removed)
    return rebuild(model, study.map, study.kept(ratio)), removed(ratio)


def multiplications(found: Map, kept: Kept | None = None) -> float:
    """Return the multiplications for one sample: weights of two axes or more, as often as they are used.

    That is exact for convolutions and Dense layers, and an estimate for the layers that are not cut.
    """
    return found.fixed + sum(_multiplications(cut, kept) for cut in found.cuts.values())


def _multiplications(cut: Cut, kept: Kept | None) -> float:
    shapes = (array.shape for array in cut.layer.get_weights())
    sizes = (
        np.prod([_count(size, labels, kept) for size, labels in zip(shape, axes, strict=True)], dtype=float)
        for shape, axes in zip(shapes, cut.arrays, strict=True)
        if len(shape) > 1
    )
    return cut.positions * float(sum(sizes))


def _count(size: int, labels: Labels | None, kept: Kept | None) -> int:
    return size if labels is None or kept is None else int(kept[labels].sum())


@dataclass(frozen=True)
class Study:
    """What may go of a model, in order."""

    map: Map
    roots: Labels
    free: Labels
    """The channels that may go, by their roots."""
    candidates: Candidates

    @classmethod
    def of(cls, found: Map) -> Study:
        """Weigh the channels of a model."""
        roots = found.channels.roots()
        made = _makers(found, roots)
        frozen = found.channels.frozen()
        free = np.array([root for root in sorted(made) if not frozen[root]], np.int64)
        groups: dict[frozenset[str], int] = {}
        group = np.array([groups.setdefault(frozenset(made[root]), len(groups)) for root in free.tolist()], np.int64)
        return cls(found, roots, free, Candidates(importance(found, roots)[free], group))

    def kept(self, ratio: float) -> Kept:
        """Return which labels stay when a ratio of the channels is to go."""
        stays = np.ones(len(self.roots), bool)
        stays[self.free] = self.candidates.kept(ratio)
        return stays[self.roots]


def _makers(found: Map, roots: Labels) -> dict[int, set[str]]:
    """Return the names of the layers that make each channel."""
    made: dict[int, set[str]] = {}
    for name, cut in found.cuts.items():
        if cut.width is not None and cut.arrays:
            for root in set(roots[cut.makes].tolist()):
                made.setdefault(root, set()).add(name)
    return made


def importance(found: Map, roots: Labels) -> npt.NDArray[np.float64]:
    """Return how much each channel matters, float [labels], known at the roots; 1 is the mean of its layers."""
    total, count = np.zeros(len(roots)), np.zeros(len(roots))
    for cut in found.cuts.values():
        for array, axis, labels in _telling(cut):
            norms = _norms(array, axis, roots[labels], len(roots))
            present = norms >= 0
            total[present] += norms[present] / max(float(norms[present].mean()), 1e-30)
            count[present] += 1
    return total / np.maximum(count, 1)


def _telling(cut: Cut) -> Iterator[tuple[Any, int, Labels]]:
    """Yield weights, axis and labels that tell a channel's importance: kernels, and the scale of a normalisation."""
    scaled = isinstance(cut.layer, keras.layers.BatchNormalization) and cut.layer.scale
    for number, (array, axes) in enumerate(zip(cut.layer.get_weights(), cut.arrays, strict=True)):
        if array.ndim > 1 or (scaled and number == 0):
            yield from ((array, axis, labels) for axis, labels in enumerate(axes) if labels is not None)


def _norms(array: Any, axis: int, roots: Labels, labels: int) -> npt.NDArray[np.float64]:
    """Return the norm of what belongs to each channel, and -1 for channels that are not here."""
    others = tuple(other for other in range(array.ndim) if other != axis)
    squares = (array.astype(np.float64) ** 2).sum(others)
    norms = np.full(labels, -1.0)
    norms[roots] = 0
    summed = np.sqrt(np.bincount(roots, squares, labels))
    return np.where(norms < 0, norms, summed)


def _check_ports(ours: Any, theirs: Any, reference: str) -> None:
    shapes = [[tensor.shape for tensor in (*model.inputs, *model.outputs)] for model in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise UserCodeFailed(f"{reference} gives a model with other inputs or outputs: train the one that it is given")
