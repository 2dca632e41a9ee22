"""Float files of a PyTorch model: each one that can be had, and why another cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from autoglm_edge_converter.errors import ConversionError, MissingPackage
from autoglm_edge_converter.original import ONNX, TFLITE
from autoglm_edge_converter.roads.pytorch_blame import is_data_dependent, place_of, root_of, said
from autoglm_edge_converter.roads.pytorch_export import DynamicControlFlow
from autoglm_edge_converter.roads.pytorch_onnx import OPSET, trace_onnx, write_onnx
from autoglm_edge_converter.roads.pytorch_originals import TorchOriginal
from autoglm_edge_converter.roads.pytorch_tflite import write_tflite

Step = Callable[[str], None]


_SINGLE = str(torch.float32)


def renditions(
    original: TorchOriginal, stem: Path, formats: Sequence[str], step: Step, opset: int = OPSET, pruning: float = 0.0
) -> list[dict[str, object]]:
    """Write a file for each format beside `stem`; what fails is told in its `problem`. Raises DynamicControlFlow."""
    roads = {ONNX: ("torch.onnx.export", _onnx), TFLITE: ("litert-torch", _tflite)}
    found = []
    for name in formats:
        tool, road = roads[name]
        step(tool)
        entry: dict[str, object] = {"format": name, "path": None, "road": tool, "problem": None}
        try:
            path = stem.with_name(f"{stem.name}.{name}")
            entry["road"] = road(original, path, opset)
            entry["path"] = str(path)
        except DynamicControlFlow:
            raise
        except Exception as error:
            entry["problem"] = _problem(error)
        found.append(entry | ({"pruning": pruning} if pruning else {}))
    return found


def _problem(error: Exception) -> str:
    if isinstance(error, ConversionError):
        return str(error)
    root = root_of(error)
    place = place_of(error)
    return f"at {place}: {said(root)}" if place else said(root)


def _onnx(original: TorchOriginal, path: Path, opset: int) -> str:
    inputs, outputs = list(original.tensors), list(original.outputs)
    if original.program is not None:
        return write_onnx(original.program, path, inputs, outputs, opset)
    try:
        return trace_onnx(original.module, original.examples, path, outputs, opset)
    except Exception as error:
        if is_data_dependent(error):
            raise DynamicControlFlow(place_of(error)) from None
        raise


def _tflite(original: TorchOriginal, path: Path, opset: int) -> str:
    if original.problem is not None:
        raise ConversionError(original.problem)
    module, args, kwargs = original.call_of_one()
    ports = list(original.tensors), list(original.outputs)
    try:
        return write_tflite(module, args, kwargs, path, ports)
    except MissingPackage:
        raise
    except Exception as error:
        others = sorted({str(tensor.dtype) for tensor in module.parameters() if tensor.is_floating_point()} - {_SINGLE})
        if others:
            raise ConversionError(
                f"it makes files of modules in float32, and this one has {' and '.join(others).replace('torch.', '')}: "
                "a factory that calls .float() on it has TFLite"
            ) from error
        lacking = original.examples.lacking
        if lacking is None:
            raise
        raise ConversionError(
            f"{_problem(error)}: the free axes are 1 in TFLite: give their sizes with {lacking}"
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of what makes the files."""
    found = {"torch": str(torch.__version__)}
    for name in ("onnxscript", "litert-torch", "torch-pruning"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
