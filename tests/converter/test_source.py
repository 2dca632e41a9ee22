"""Model files that cannot be converted: each ends in one typed line that says what to give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.converter.graphs import DIGITS, linear

from autoglm_edge_converter.errors import (
    BadModel,
    BadOption,
    BrokenWeights,
    ConversionError,
    MissingWeights,
    NotAModel,
    UnknownOperator,
)
from autoglm_edge_converter.source import load_source


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no model" * 10)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    whole = (DIGITS / "mbn.onnx").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def nan_weights(path: Path) -> None:
    model = onnx.load(linear(path))
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.full((8, 4), np.nan, np.float32), weight.name))
    onnx.save(model, path)


def unknown_operator(path: Path) -> None:
    model = onnx.load(linear(path))
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, path)


def weights_elsewhere(path: Path) -> None:
    model = onnx.load(linear(path))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    path.with_name("weights.bin").unlink()


def no_inputs(path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))],
        [numpy_helper.from_array(np.zeros(1, np.float32), "w")],
    )
    onnx.save(helper.make_model(graph), path)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (garbage, NotAModel, "not an ONNX model, or is cut short"),
        (empty, NotAModel, "holds no ONNX graph"),
        (truncated, NotAModel, "not an ONNX model, or is cut short"),
        (nan_weights, BrokenWeights, "'w' holds NaN"),
        (unknown_operator, UnknownOperator, r"operator Frobnicate \(node 'product'\)"),
        (weights_elsewhere, MissingWeights, "keeps weights in another file"),
        (no_inputs, BadModel, "takes no input"),
        (lambda path: None, NotAModel, "is not a file"),
    ],
)
def test_a_model_that_cannot_be_converted_is_said(
    tmp_path: Path, make: Callable[[Path], None], error: type[ConversionError], says: str
) -> None:
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(error, match=says) as caught:
        load_source(path)
    assert "\n" not in str(caught.value)


def test_ports_tell_free_axes(tmp_path: Path) -> None:
    source = load_source(linear(tmp_path / "m.onnx"))
    assert [(port.name, port.dtype, port.shape) for port in source.inputs] == [("x", "float32", (None, 8))]
    assert source.outputs[0].spec().shape == (-1, 4)


def test_a_hint_fixes_free_axes_and_unknown_ranks(tmp_path: Path) -> None:
    assert load_source(linear(tmp_path / "m.onnx"), {"x": (2, 8)}).inputs[0].shape == (2, 8)
    assert load_source(linear(tmp_path / "r.onnx", axes=None), {"x": (-1, 8)}).inputs[0].shape == (None, 8)


@pytest.mark.parametrize("hint", [{"z": (1, 8)}, {"x": (1, 9)}, {"x": (1,)}, {"x": (0, 8)}])
def test_a_hint_that_does_not_fit_is_refused(tmp_path: Path, hint: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(BadOption, match="--shape"):
        load_source(linear(tmp_path / "m.onnx"), hint)
