"""Loading an original that is a TFLite file: whole, finite and made of known operators, or a typed error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autoglm_edge_converter.errors import BadModel, BrokenWeights, NotAModel
from autoglm_edge_converter.operators import registerers_in_use
from autoglm_edge_converter.original import TFLITE, Original, Rendition
from autoglm_edge_converter.source import fix_shapes
from autoglm_edge_converter.tensors import Port
from autoglm_edge_converter.tflite.editing import constant, serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.operators import check_operators
from autoglm_edge_converter.tflite.ports import name_ports
from autoglm_edge_converter.tflite.schema import Table
from autoglm_edge_protocol.digests import sha256_of

AS_IT_CAME = "as it came"


def load_tflite(path: Path, shapes: Mapping[str, tuple[int, ...]], scratch: Path) -> Original:
    """Read a TFLite file, fix the free axes that `shapes` names (-1 keeps one free) and write it below `scratch`.

    Its ports are called as its signature says, or as its tensors are called where it has none.
    Raises NotAModel, BrokenWeights, UnknownOperator, BadModel, BadOption, OSError.
    """
    if not path.is_file():
        raise NotAModel(f"{path} is not a file: give the path of a TFLite model")
    data = path.read_bytes()
    found = read_model(data, str(path))
    if not registerers_in_use():  # else LiteRT itself says which operator is in none of them
        check_operators(found)
    if not found.inputs:
        raise BadModel(f"{path} takes no input, so there is nothing to calibrate")
    changed = unpack(data)
    _check_weights(changed)
    inputs = fix_shapes(found.inputs, shapes)
    _write_shapes(changed, inputs)
    name_ports(changed, [port.name for port in inputs], [port.name for port in found.outputs])
    runnable = scratch / "original.tflite"
    runnable.write_bytes(serialize(changed))
    return Original(
        path=path,
        framework=TFLITE,
        sha256=sha256_of(data),
        size_bytes=len(data),
        inputs=inputs,
        outputs=found.outputs,
        runnable=runnable,
        renditions=(Rendition(TFLITE, runnable, AS_IT_CAME),),
    )


def _check_weights(model: Table) -> None:
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            value = constant(model, tensor)
            if value is not None and np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                name = (tensor.name or b"").decode(errors="replace")
                raise BrokenWeights(f"weight {name!r} holds NaN or infinity: repair the model first")


def _write_shapes(model: Table, inputs: Sequence[Port]) -> None:
    """What follows from an input's shape is worked out by the runtime when it sets its memory aside."""
    graph = model.subgraphs[0]
    for index, port in zip(graph.inputs, inputs, strict=True):
        tensor = graph.tensors[index]
        axes = port.shape or ()
        tensor.shape = [1 if size is None else size for size in axes]
        tensor.shapeSignature = [-1 if size is None else size for size in axes] if None in axes else None
