"""An ONNX graph with no free axis, folded as far as its shapes allow: what can be translated to TFLite faithfully."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxslim

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.source import load_source
from autoglm_edge_converter.tensors import Array, Feed, Port


def fixed_graph(model: Path, shapes: Mapping[str, Sequence[int]]) -> tuple[onnx.ModelProto, tuple[Port, ...]]:
    """Return the graph with every axis of its inputs fixed, and those inputs.

    Free axes get the sizes of `shapes`; a first axis that is still free gets 1. Raises BadOption where another is free;
    BadModel and OSError as `load_source`.
    """
    found = load_source(model, {name: tuple(shape) for name, shape in shapes.items()})
    hints = {port.name: _with_batch(port) for port in found.inputs}
    fixed = load_source(model, hints)
    return fixed.proto, fixed.inputs


def _with_batch(port: Port) -> tuple[int, ...]:
    sizes = [1 if axis is None and place == 0 else axis for place, axis in enumerate(port.shape or ())]
    if port.shape is None or None in sizes:
        example = "" if port.shape is None else f", such as {','.join(str(axis or 128) for axis in sizes)}"
        raise BadOption(
            f"input {port.name!r} has a free axis, and TFLite needs its size: give it with --shape "
            f"{port.name}=SIZES{example}"
        )
    return tuple(axis for axis in sizes if axis is not None)


def slimmed(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return the graph folded and fused by onnxslim, None where onnxslim fails. The graph given is not changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    try:
        folded: onnx.ModelProto = onnxslim.slim(copy)
    except Exception:  # it raises anything from KeyError to the errors of the onnx checker
        return None
    return folded


def random_feeds(inputs: Sequence[Port], count: int, seed: int = 0) -> list[Feed]:
    """Return inputs where the user gave none: floats in [0, 1), integers of 0 and 1, which every table of words has."""
    numbers = np.random.default_rng(seed)
    return [{port.name: _random(port, numbers) for port in inputs} for _ in range(count)]


def _random(port: Port, numbers: np.random.Generator) -> Array:
    shape = tuple(axis or 1 for axis in port.shape or ())
    kind = np.dtype(port.dtype)
    return np.asarray(numbers.random(shape) if kind.kind == "f" else numbers.integers(0, 2, shape)).astype(kind)
