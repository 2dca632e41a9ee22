"""ONNX from PyTorch: the exporter that reads exported programs, and tracing where a module cannot be exported."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram

from autoglm_edge_converter.errors import BadModel
from autoglm_edge_converter.roads.pytorch_examples import Examples

OPSET = 18
LARGEST_BYTES = 2**31 - 2**20
"""Protocol buffers end at 2 GiB; weights stay in the file."""


def write_onnx(
    program: ExportedProgram, path: Path, inputs: Sequence[str], outputs: Sequence[str], opset: int = OPSET
) -> str:
    """Write an ONNX file with these port names and the weights in it; return what made it.

    Raises BadModel; errors of the exporter pass through.
    """
    _refuse_large(tuple(program.state_dict.values()))
    made = torch.onnx.export(program, dynamo=True, opset_version=opset, external_data=False, verbose=False)
    assert made is not None
    graph = made.model.graph
    for side, ports, names in (("inputs", graph.inputs, inputs), ("outputs", graph.outputs, outputs)):
        if len({id(value) for value in ports}) != len(names):
            raise BadModel(f"the exported graph has {len(ports)} {side}, the module has {len(names)} different ones")
    for value in graph.all_nodes():
        for result in value.outputs:
            if result.name in (*inputs, *outputs):
                result.name = f"{result.name}_inside"
    for value, name in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.name = name
    made.save(path, external_data=False)
    return f"torch.onnx.export {_version()}"


def trace_onnx(
    module: torch.nn.Module,
    examples: Examples,
    path: Path,
    outputs: Sequence[str],
    opset: int = OPSET,
) -> str:
    """Write an ONNX file by tracing one call; what depends on values is refused. Return what made it.

    Raises BadModel, TracerWarning (a decision that would be frozen); errors of the exporter pass through.
    """
    _refuse_large(tuple(module.state_dict().values()))
    axes = {name: {axis: f"{name}_{axis}" for axis in free} for name, free in examples.free.items() if free}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", torch.jit.TracerWarning)
        torch.onnx.export(
            module,
            (*examples.args, examples.kwargs) if examples.kwargs else examples.args,
            path,
            dynamo=False,
            opset_version=opset,
            input_names=list(examples.tensors),
            output_names=list(outputs),
            dynamic_axes=axes or None,
        )
    return f"torch.jit.trace {_version()}"


def _refuse_large(tensors: Sequence[torch.Tensor]) -> None:
    size_bytes = sum(tensor.nbytes for tensor in tensors)
    if size_bytes > LARGEST_BYTES:
        raise BadModel(f"{size_bytes} bytes of weights do not fit one ONNX file, which ends at 2 GiB")


def _version() -> str:
    return str(torch.__version__).partition("+")[0]
