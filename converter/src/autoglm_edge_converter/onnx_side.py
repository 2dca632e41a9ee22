"""The ONNX side: the float graph optimised, pruned where that is wanted, and the candidates made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from autoglm_edge_converter.cache import Cache
from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.float_graphs import FloatGraph
from autoglm_edge_converter.inspection import weighted_nodes
from autoglm_edge_converter.measure import FP32, ORIGINAL, Form
from autoglm_edge_converter.optimise import PassOutcome, optimise
from autoglm_edge_converter.original import FORMATS, ONNX, Rendition
from autoglm_edge_converter.passes import passes_for
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.pruned_graphs import OFF, PRUNED, pruned_graphs
from autoglm_edge_converter.pruning.magnitude import mask_smallest
from autoglm_edge_converter.recipes import OPTIMISED, SPARSE
from autoglm_edge_converter.results import Options
from autoglm_edge_converter.selection import Builder
from autoglm_edge_converter.sides import Pruned, Side
from autoglm_edge_converter.targets import demands_of, own_kind
from autoglm_edge_converter.twins import twins_for
from autoglm_edge_converter.workbench import Workbench


def prepare_onnx(bench: Workbench, path: Path, options: Options, done: Sequence[Side], progress: Progress) -> Side:
    """Optimise the float graph, and prune it where that is wanted. Raises CandidateFailed, OSError."""
    demands = demands_of(options.targets, FORMATS)
    newest_opset = demands.newest_opset
    passes: list[PassOutcome] = []
    float_model = _optimise(bench, path, passes, newest_opset, progress)
    floats = [Form(FP32, FP32, bench.write(float_model, FP32))]
    if bench.source.framework == ONNX:
        floats.insert(0, Form(ORIGINAL, FP32, bench.original))
    prune = OFF if options.finetune is not None else options.prune
    pruned, pruning = pruned_graphs(float_model, bench, prune, options.max_drop, options.seed, progress)
    tuned = tuple(_finetuned(entry) for entry in bench.source.renditions if entry.format == ONNX and entry.pruning)
    graphs = (FloatGraph(OPTIMISED, float_model), *pruned, *tuned, *_sparse(float_model, options.sparsify))

    def build(deadline: Deadline, cache: Cache, shown: Progress) -> Builder:
        return Candidates(graphs, bench, shown, deadline, cache, twins_for(demands, own_kind()))

    return Side(
        format=ONNX,
        floats=tuple(floats),
        pruned=tuple(
            Pruned(graph.name, bench.write(graph.proto, f"{PRUNED}-{number}"), graph.pruning)
            for number, graph in enumerate(graphs[1:])
        ),
        open=build,
        nodes=weighted_nodes(float_model.graph),
        passes=tuple(passes),
        pruning=pruning,
    )


def _sparse(proto: onnx.ModelProto, fraction: float | None) -> tuple[FloatGraph, ...]:
    return () if fraction is None else (FloatGraph(SPARSE, mask_smallest(proto, fraction), fraction),)


def _finetuned(rendition: Rendition) -> FloatGraph:
    assert rendition.path is not None
    return FloatGraph(f"finetuned, {rendition.pruning:.0%} less", onnx.load(rendition.path), rendition.pruning)


def _optimise(
    bench: Workbench, path: Path, outcomes: list[PassOutcome], newest_opset: int, progress: Progress
) -> onnx.ModelProto:
    passes = passes_for(newest_opset)
    progress.stage("optimise", len(passes))

    def done(outcome: PassOutcome) -> None:
        outcomes.append(outcome)
        progress.step(outcome.name)
        if outcome.dropped:
            progress.note(f"{outcome.name} dropped: {outcome.dropped}")

    return optimise(onnx.load(path), passes, bench.comparing(path), done, newest_opset)
