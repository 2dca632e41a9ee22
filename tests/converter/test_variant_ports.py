"""What a manifest says of a variant's inputs and outputs, where its file has something else than the original."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tests.fakes.tflite_layers import linear_tflite

from autoglm_edge_converter.tensors import Port
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.variant_ports import ports_of


def test_a_size_that_a_tflite_file_has_fixed_is_no_free_axis(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(linear_tflite(np.zeros((6, 3), np.float32), np.zeros(3, np.float32)))
    file = read_model(path.read_bytes(), path.name)
    (x,), (y,) = file.inputs, file.outputs
    source: Any = SimpleNamespace(
        inputs=(Port(x.name, "float32", (None, 6)),), outputs=(Port(y.name, "float32", (None, 3)),)
    )
    ports = ports_of(path, source, ())
    assert [spec.shape for spec in (*ports.inputs, *ports.outputs)] == [(1, 6), (1, 3)]
    (tmp_path / "model.onnx").write_bytes(b"")
    same = ports_of(tmp_path / "model.onnx", source, ())
    assert [spec.shape for spec in (*same.inputs, *same.outputs)] == [(-1, 6), (-1, 3)]
