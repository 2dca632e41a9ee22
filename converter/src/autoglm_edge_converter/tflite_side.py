"""The TFLite side: the float file as its road wrote it, and the candidates made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_converter.cache import Cache
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.measure import FP32, ORIGINAL, Form, float_id
from autoglm_edge_converter.original import TFLITE
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import FLOAT, OPTIMISED, Recipe
from autoglm_edge_converter.results import Options
from autoglm_edge_converter.selection import Builder
from autoglm_edge_converter.sides import Side
from autoglm_edge_converter.tflite.candidates import FloatFile, TfliteCandidates
from autoglm_edge_converter.tflite.nodes import prepare
from autoglm_edge_converter.tflite.quantizer import quantize
from autoglm_edge_converter.workbench import Workbench


def prepare_tflite(bench: Workbench, path: Path, options: Options, formats: Sequence[str], progress: Progress) -> Side:
    """Strip the float file of what it does not need. Raises NotAModel, OSError."""
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
    pruned = tuple(
        FloatFile(f"finetuned, {entry.pruning:.0%} less", entry.path.read_bytes(), entry.pruning)
        for entry in bench.source.renditions
        if entry.format == TFLITE and entry.pruning and entry.path is not None
    )
    files = (FloatFile(OPTIMISED, data), *pruned)

    def build(deadline: Deadline, cache: Cache, shown: Progress) -> Builder:
        return TfliteCandidates(files, bench, shown, deadline, cache, integer_ports=options.int8_io)

    return Side(
        format=TFLITE,
        floats=tuple(floats),
        pruned=tuple(file.name for file in pruned),
        open=build,
        tflite_nodes=tuple(node.name for node in prepared.nodes),
    )
