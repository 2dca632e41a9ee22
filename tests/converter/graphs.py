"""Models and samples of the converter's tests: the digits networks of the examples, and tiny graphs made here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


INT8 = ("int8", "int8-mixed")
"""What the 8-bit variant of a digits network is called: without VNNI its first layer may be faster in float."""


def int8_in(names: Iterable[str]) -> str:
    """Return the name of the 8-bit variant among these; there must be one."""
    (name,) = [entry for entry in names if entry in INT8]
    return name


def write_digits(path: Path, count: int, dtype: str = "float32") -> Path:
    with np.load(DIGITS / "digits32.npz") as digits:
        images = digits["test"][:count, None]
    np.savez(path, x=images if dtype == "uint8" else (images / 255).astype(dtype))
    return path


def linear(path: Path, *, axes: tuple[int | str, ...] | None = ("N", 8), weights: float = 0.1, opset: int = 17) -> Path:
    """Write y = x W + b with four classes; deterministic weights."""
    matrix = (np.random.default_rng(1).normal(size=(8, 4)) * weights).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"], "product"), helper.make_node("Add", ["p", "b"], ["y"], "bias")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None if axes is None else (axes[0], 4))],
        [numpy_helper.from_array(matrix, "w"), numpy_helper.from_array(np.arange(4, dtype=np.float32) / 10, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def linear_samples(path: Path, count: int = 30) -> Path:
    np.savez(path, x=np.random.default_rng(2).normal(size=(count, 8)).astype(np.float32))
    return path
