"""Evidence for the report, taken from the models as they were written: layers and samples on which answers differ.

Nothing here may end a conversion: what cannot be had is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.metrics.rows import TOP1, metric_of
from autoglm_edge_converter.report.document import (
    Answer,
    Disagreement,
    Disagreements,
    Layer,
    Layers,
    LayerSize,
    Noise,
    WorstLayer,
)
from autoglm_edge_converter.report.layers import histogram
from autoglm_edge_converter.report.opened import Opened
from autoglm_edge_converter.report.picture import picture
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol import golden

LAYER_SAMPLES = 4
MOST_LAYERS = 48
MOST_SHOWN = 12
TOP_ANSWERS = 3


@dataclass(frozen=True)
class Pair:
    """The float variant of a format, and the quantized one that is looked at closely."""

    format: str
    before: Opened
    after: Opened | None


@dataclass(frozen=True)
class Evidence:
    """What was found in the written models."""

    layers: tuple[Layers, ...] = ()
    """By format."""
    disagreements: tuple[Disagreements, ...] = ()


def collect(
    bench: Workbench, pairs: Sequence[Pair], variants: Mapping[str, Path], sensitive: Sequence[str] = ()
) -> Evidence:
    """Look at the layers of each format and the answers of the variants given by id.

    `sensitive` are names of nodes, the most sensitive first, where that is known.
    """
    found = [_disagreements(bench, name, path) for name, path in variants.items()]
    kept = tuple(entry for entry in found if entry is not None)
    return Evidence(tuple(_layers(bench, pair, sensitive) for pair in pairs), kept)


def _layers(bench: Workbench, pair: Pair, sensitive: Sequence[str]) -> Layers:
    before = pair.before.layers()
    after = pair.after.layers() if pair.after is not None else {}
    rows = [
        LayerSize(name, entry.operator, entry.stored_bytes, after[name].stored_bytes if name in after else None)
        for name, entry in before.items()
    ]
    sizes = tuple(sorted(rows, key=lambda row: -row.before_bytes))
    noise, worst = _along_the_way(bench, pair.before, pair.after, sensitive) if pair.after else (Noise(), None)
    return Layers(pair.format, noise, sizes, worst)


def _along_the_way(
    bench: Workbench, old: Opened, new: Opened, sensitive: Sequence[str]
) -> tuple[Noise, WorstLayer | None]:
    ours, theirs = old.layers(), new.layers()
    both = [name for name in ours if name in theirs][:MOST_LAYERS]
    samples = bench.parts.evaluation[:LAYER_SAMPLES]
    try:
        before = old.outputs([ours[name].output for name in both], samples)
        after = new.outputs([theirs[name].output for name in both], samples)
    except CandidateFailed:
        return Noise(), None
    layers = []
    for name in both:
        pair = before[ours[name].output], after[theirs[name].output]
        if pair[0][0].dtype.kind == "f" and all(a.shape == b.shape for a, b in zip(*pair, strict=True)):
            loss = golden.compare(*pair).sqnr_db
            layers.append(Layer(name, ours[name].operator, loss, in_float=theirs[name].in_float))
    if not layers:
        return Noise(), None
    ranked = sorted(layers, key=lambda layer: float("inf") if layer.sqnr_db is None else layer.sqnr_db)
    how = "noise at the output of each layer of the quantized variant, that of the layers before it included"
    name = _worst([layer for layer in ranked if not layer.in_float] or ranked, sensitive)
    activations = before[ours[name].output], after[theirs[name].output]
    return Noise(how, tuple(ranked)), _close_up(name, (old.weights(name), new.weights(name)), activations)


def _worst(ranked: Sequence[Layer], sensitive: Sequence[str]) -> str:
    present = {layer.name for layer in ranked}
    return next((name for name in sensitive if name in present), ranked[0].name)


def _close_up(
    name: str, weights: tuple[Array | None, Array | None], activations: tuple[list[Array], list[Array]]
) -> WorstLayer | None:
    found = []
    if weights[0] is not None and weights[1] is not None:
        found.append(histogram("weights", [weights[0]], [weights[1]]))
    found.append(histogram("activations", *activations))
    kept = tuple(entry for entry in found if entry is not None)
    return WorstLayer(name, "as it is in the quantized variant", kept) if kept else None


def _disagreements(bench: Workbench, variant: str, path: Path) -> Disagreements | None:
    """Find held-back samples whose top answer is another one; None where no output has a top answer."""
    held_back = bench.parts.evaluation
    number = next((n for n, array in enumerate(bench.references[held_back[0]]) if metric_of([array]) == TOP1), None)
    if number is None:
        return None
    try:
        answers = bench.laboratory.run(path, held_back)
    except CandidateFailed:
        return None
    shown: list[Disagreement] = []
    found = 0
    for position, index in enumerate(held_back):
        original, other = bench.references[index][number], answers[position][number]
        row = _first_difference(original, other)
        if row is None:
            continue
        found += 1
        if len(shown) < MOST_SHOWN:
            shown.append(_show(bench, index, number, row, (original, other)))
    return Disagreements(variant, found, len(held_back), tuple(shown))


def _first_difference(original: Array, other: Array) -> int | None:
    if original.shape != other.shape:
        return None
    rows = [array.reshape(-1, array.shape[-1]).argmax(axis=1) for array in (original, other)]
    different = np.flatnonzero(rows[0] != rows[1])
    return int(different[0]) if different.size else None


def _show(bench: Workbench, index: int, number: int, row: int, arrays: tuple[Array, Array]) -> Disagreement:
    tops = [_top(array.reshape(-1, array.shape[-1])[row]) for array in arrays]
    pictures = (picture(array[row : row + 1] if len(array) > row else array) for array in bench.feeds[index].values())
    image = next((entry for entry in pictures if entry is not None), None)
    return Disagreement(index, bench.source.outputs[number].name, tops[0], tops[1], image, _truth(bench, index, row))


def _truth(bench: Workbench, index: int, row: int) -> str | None:
    if bench.labels is None:
        return None
    labels = bench.labels[index].reshape(-1)
    return str(labels[row]) if row < len(labels) else None


def _top(row: Array) -> tuple[Answer, ...]:
    best = np.argsort(-row.astype(np.float64), kind="stable")[:TOP_ANSWERS]
    return tuple(Answer(str(int(position)), float(row[position])) for position in best)
