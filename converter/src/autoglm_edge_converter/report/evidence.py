"""Evidence for the report, taken from the models as they were written: layers and samples on which answers differ.

Nothing here may end a conversion: what cannot be had is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.metrics.rows import TOP1, metric_of
from autoglm_edge_converter.report.document import (
    Answer,
    Disagreement,
    Disagreements,
    Layer,
    LayerSize,
    Noise,
    WorstLayer,
)
from autoglm_edge_converter.report.layers import Weighted, constants, histogram, sizes, weighted
from autoglm_edge_converter.report.picture import picture
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol import golden

LAYER_SAMPLES = 4
MOST_LAYERS = 48
MOST_SHOWN = 12
TOP_ANSWERS = 3


@dataclass(frozen=True)
class Evidence:
    """What was found in the written models."""

    sizes: tuple[LayerSize, ...] = ()
    noise: Noise = field(default_factory=Noise)
    worst: WorstLayer | None = None
    disagreements: tuple[Disagreements, ...] = ()


def collect(
    bench: Workbench,
    before: Path | None,
    after: Path | None,
    variants: Mapping[str, Path],
    sensitive: Sequence[str] = (),
) -> Evidence:
    """Look at the float model `before`, the quantized one `after` and the answers of the variants given by id.

    Both are ONNX; without them there is nothing to say of layers.
    `sensitive` are names of nodes, the most sensitive first, where that is known. Raises OSError.
    """
    found = [_disagreements(bench, name, path) for name, path in variants.items()]
    kept = tuple(entry for entry in found if entry is not None)
    if before is None:
        return Evidence(disagreements=kept)
    old = onnx.load(before)
    new = onnx.load(after) if after is not None else None
    noise, worst = _along_the_way(bench, old, new, sensitive) if new is not None else (Noise(), None)
    return Evidence(sizes(old.graph, new.graph if new else None), noise, worst, kept)


def _along_the_way(
    bench: Workbench, old: onnx.ModelProto, new: onnx.ModelProto, sensitive: Sequence[str]
) -> tuple[Noise, WorstLayer | None]:
    ours, theirs = weighted(old.graph), weighted(new.graph)
    both = [name for name in ours if name in theirs][:MOST_LAYERS]
    samples = bench.parts.evaluation[:LAYER_SAMPLES]
    try:
        before = _outputs(bench, old, [ours[name].output for name in both], samples)
        after = _outputs(bench, new, [theirs[name].output for name in both], samples)
    except CandidateFailed:
        return Noise(), None
    layers = []
    for name in both:
        pair = before[ours[name].output], after[theirs[name].output]
        if pair[0][0].dtype.kind == "f" and all(a.shape == b.shape for a, b in zip(*pair, strict=True)):
            loss = golden.compare(*pair).sqnr_db
            layers.append(Layer(name, ours[name].operator, loss, in_float=_is_float(new.graph, theirs[name])))
    if not layers:
        return Noise(), None
    ranked = sorted(layers, key=lambda layer: float("inf") if layer.sqnr_db is None else layer.sqnr_db)
    how = "noise at the output of each layer of the quantized variant, that of the layers before it included"
    name = _worst([layer for layer in ranked if not layer.in_float] or ranked, sensitive)
    activations = before[ours[name].output], after[theirs[name].output]
    return Noise(how, tuple(ranked)), _close_up(old.graph, new.graph, ours[name], theirs[name], activations)


def _is_float(graph: onnx.GraphProto, node: Weighted) -> bool:
    return all(tensor.name != node.weight or tensor.data_type not in (2, 3) for tensor in graph.initializer) and any(
        tensor.name == node.weight for tensor in graph.initializer
    )


def _worst(ranked: Sequence[Layer], sensitive: Sequence[str]) -> str:
    present = {layer.name for layer in ranked}
    return next((name for name in sensitive if name in present), ranked[0].name)


def _outputs(
    bench: Workbench, model: onnx.ModelProto, tensors: Sequence[str], samples: Sequence[int]
) -> dict[str, list[Array]]:
    """Run a model with inner tensors as further outputs. Raises CandidateFailed."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    outer = [value.name for value in opened.graph.output]
    inner = [name for name in dict.fromkeys(tensors) if name not in outer]
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    answers = bench.laboratory.run(bench.write(opened, "evidence"), samples)
    return {name: [sample[number] for sample in answers] for number, name in enumerate([*outer, *inner])}


def _close_up(
    old: onnx.GraphProto, new: onnx.GraphProto, ours: Weighted, theirs: Weighted, activations: tuple[list[Array], ...]
) -> WorstLayer | None:
    before, after = constants(old), constants(new)
    found = []
    if ours.weight in before and theirs.weight in after:
        found.append(histogram("weights", [before[ours.weight]], [after[theirs.weight]]))
    found.append(histogram("activations", activations[0], activations[1]))
    kept = tuple(entry for entry in found if entry is not None)
    return WorstLayer(ours.name, "as it is in the quantized variant", kept) if kept else None


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
