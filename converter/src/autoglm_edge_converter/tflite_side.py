"""The TFLite side: the float file as its road wrote it, and the candidates made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_converter.cache import Cache
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.measure import FP32, ORIGINAL, Form, float_id
from autoglm_edge_converter.original import FORMATS, ONNX, TFLITE
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import FLOAT, OPTIMISED, SPARSE, Recipe
from autoglm_edge_converter.results import Options
from autoglm_edge_converter.roads.onnx_to_tflite import to_tflite
from autoglm_edge_converter.selection import Builder
from autoglm_edge_converter.sides import Pruned, Side
from autoglm_edge_converter.targets import demands_of, own_kind
from autoglm_edge_converter.tflite.candidates import FloatFile, TfliteCandidates
from autoglm_edge_converter.tflite.nodes import ends, prepare
from autoglm_edge_converter.tflite.quantizer import quantize
from autoglm_edge_converter.twins import twins_for
from autoglm_edge_converter.workbench import Workbench


def prepare_tflite(bench: Workbench, path: Path, options: Options, done: Sequence[Side], progress: Progress) -> Side:
    """Strip the float file of what it does not need, and bring pruned ONNX graphs here. Raises NotAModel, OSError."""
    progress.stage("tflite", 1)
    data = path.read_bytes()
    prepared = prepare(data)
    name = float_id(TFLITE)
    written = bench.scratch / f"{name}.tflite"
    written.write_bytes(quantize(prepared, Recipe(family=FLOAT), (), {}))
    floats = [Form(name, FP32, written)]
    if bench.source.framework == TFLITE:
        floats.insert(0, Form(ORIGINAL, FP32, bench.original))
    progress.step("float file")
    pruned = (*_finetuned(bench), *_from_onnx(bench, done, progress))
    files = (FloatFile(OPTIMISED, data), *(FloatFile(e.name, e.path.read_bytes(), e.pruning) for e in pruned))
    demands = demands_of(options.targets, FORMATS)
    readers, twins = demands.oldest_for(TFLITE), twins_for(demands, own_kind())

    def build(deadline: Deadline, cache: Cache, shown: Progress) -> Builder:
        return TfliteCandidates(files, bench, shown, deadline, cache, readers=readers, twins=twins)

    return Side(
        format=TFLITE,
        floats=tuple(floats),
        pruned=pruned,
        open=build,
        tflite_nodes=tuple(node.name for node in prepared.nodes),
        tflite_ends=ends(prepared),
    )


def _finetuned(bench: Workbench) -> tuple[Pruned, ...]:
    return tuple(
        Pruned(f"finetuned, {entry.pruning:.0%} less", entry.path, entry.pruning)
        for entry in bench.source.renditions
        if entry.format == TFLITE and entry.pruning and entry.path is not None
    )


def _from_onnx(bench: Workbench, done: Sequence[Side], progress: Progress) -> tuple[Pruned, ...]:
    """Bring graphs that were pruned on the ONNX side into TFLite; one that cannot be brought here is told of."""
    graphs = [entry for side in done if side.format == ONNX for entry in side.pruned if not _is_elsewhere(entry)]
    feeds = [bench.feeds[index] for index in bench.check_samples]
    found = []
    for number, entry in enumerate(graphs):
        out = bench.scratch / f"pruned-{number}.tflite"
        shapes = {name: array.shape for name, array in feeds[0].items()}
        made = to_tflite(entry.path, out, shapes, progress, feeds)
        if made.path is None:
            progress.note(f"no pruned TFLite variant: {made.road}: {made.problem}")
        else:
            found.append(Pruned(entry.name, made.path, entry.pruning))
    return tuple(found)


def _is_elsewhere(entry: Pruned) -> bool:
    """Tell whether a graph has a TFLite file of its own road, or is for ONNX alone."""
    return entry.name.startswith("finetuned") or entry.name == SPARSE
