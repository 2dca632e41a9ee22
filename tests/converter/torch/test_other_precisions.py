"""Modules in half and double precision: their ONNX graph computes in float32, between ports of the type they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tests.converter.torch.road import feed_of, go, largest_difference

from autoglm_edge_converter.loading import Loading, load_original
from autoglm_edge_converter.progress import Silent

NETWORK = """
import torch

def net():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 5)
    return torch.nn.Sequential(*layers).eval().{kind}()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype", "most"), [("half", np.float16, 2e-3), ("double", np.float64, 1e-6)], ids=["half", "double"]
)
def test_the_graph_is_single_and_its_border_is_not(tmp_path: Path, kind: str, dtype: type, most: float) -> None:
    (tmp_path / "net.py").write_text(NETWORK.format(kind=kind))
    np.savez(tmp_path / "example.npz", input=np.zeros((1, 3, 8, 8), dtype))
    loading = Loading(formats=("onnx",), options={"example_inputs": str(tmp_path / "example.npz")})
    (tmp_path / "scratch").mkdir()
    found = load_original(f"{tmp_path / 'net.py'}:net", loading, tmp_path / "scratch", Silent())
    assert found.precision == np.dtype(dtype).name
    assert found.single == found.renditions[0].path
    assert found.came != found.single
    assert [port.dtype for port in (*found.inputs, *found.outputs)] == [np.dtype(dtype).name] * 2
    assert {tensor.data_type for tensor in found.proto.graph.initializer if tensor.dims} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }
    onnx.checker.check_model(found.proto)
    assert max(largest_difference(found, feed_of(found)).values()) <= most


@pytest.mark.slow
def test_why_there_is_no_tflite_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK.format(kind="half"))
    np.savez(tmp_path / "example.npz", input=np.zeros((1, 3, 8, 8), np.float16))
    example = str(tmp_path / "example.npz")
    found = go(f"{tmp_path / 'net.py'}:net", tmp_path / "scratch", {}, ("tflite",), example_inputs=example)
    assert found.renditions[0].problem is not None
    assert found.renditions[0].problem.startswith("it makes files of modules in float32, and this one has float16")
