"""Biases that make up for what rounding the weights does to the mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.tflite.files import MBN, Spec, Step, make

from autoglm_edge_converter.bias import rounding_error
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.tflite.bias import correct_biases, correctable
from autoglm_edge_converter.tflite.calibration import Calibrated, calibrate
from autoglm_edge_converter.tflite.editing import constant, serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.schema import tables

CHANNELS, OUTPUTS = 4, 8
LAYERS = {
    "CONV_2D": (OUTPUTS, 3, 3, CHANNELS),
    "grouped CONV_2D": (OUTPUTS, 3, 3, CHANNELS // 2),
    "DEPTHWISE_CONV_2D": (1, 3, 3, OUTPUTS),
    "FULLY_CONNECTED": (OUTPUTS, CHANNELS),
}
RANDOM = np.random.default_rng(11)


def _options(kind: str) -> object:
    if kind == "FULLY_CONNECTED":
        return tables.FullyConnectedOptionsT()
    options = tables.DepthwiseConv2DOptionsT() if kind.startswith("D") else tables.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = tables.Padding.VALID, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    if kind.startswith("D"):
        options.depthMultiplier = OUTPUTS // CHANNELS
    return options


def _layer(name: str) -> bytes:
    kind = name.rsplit(maxsplit=1)[-1]
    flat = kind == "FULLY_CONNECTED"
    weight = RANDOM.normal(size=LAYERS[name]).astype(np.float32)
    specs = [
        Spec("x", (1, CHANNELS) if flat else (1, 5, 5, CHANNELS)),
        Spec("w", LAYERS[name], value=weight),
        Spec("b", (OUTPUTS,), value=RANDOM.normal(size=OUTPUTS).astype(np.float32)),
        Spec("y", (1, OUTPUTS) if flat else (1, 3, 3, OUTPUTS)),
    ]
    return make(specs, [Step(kind, (0, 1, 2), (3,), _options(kind))], (0,), (3,))


def _feeds(name: str) -> list[Feed]:
    """A mean far from zero, and the same at each place, so that the correction is exact."""
    values = RANDOM.normal(3.0, 1.0, size=(8, 1, CHANNELS)).astype(np.float32)
    if name != "FULLY_CONNECTED":
        values = np.broadcast_to(values[:, :, None, None, :], (8, 1, 5, 5, CHANNELS)).copy()
    return [{"x": value} for value in values]


def _rounded(data: bytes, axis: int) -> bytes:
    """The same file with the weights as 8 bits hold them."""
    model = unpack(data)
    tensor = model.subgraphs[0].tensors[1]
    weight = constant(model, tensor)
    assert weight is not None
    rows = np.moveaxis(weight, axis, 0)
    held = np.moveaxis(rows + rounding_error(rows), 0, axis).astype(np.float32)
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(held).tobytes(), np.uint8)
    return serialize(model)


def _means(folder: Path, data: bytes, feeds: list[Feed]) -> Array:
    path = folder / "model.tflite"
    path.write_bytes(data)
    runner = open_runner(path)
    (port,) = read_model(data).inputs
    found = np.stack([runner.run({port.name: feed["x"]})[0] for feed in feeds])
    return np.asarray(found.reshape(-1, OUTPUTS).mean(axis=0))


@pytest.mark.parametrize("name", LAYERS)
def test_the_mean_of_every_channel_is_what_it_was(tmp_path: Path, name: str) -> None:
    feeds = _feeds(name)
    found = calibrate(_layer(name), feeds, lambda: None)
    corrected = correct_biases(found.prepared, ["y"], found.observation).data
    axis = -1 if name == "DEPTHWISE_CONV_2D" else 0
    expected = _means(tmp_path, found.prepared.data, feeds)
    without, with_it = (_means(tmp_path, _rounded(data, axis), feeds) for data in (found.prepared.data, corrected))
    assert np.abs(without - expected).max() > 1e-2
    np.testing.assert_allclose(with_it, expected, atol=1e-4)


@pytest.fixture(scope="module")
def mbn() -> Calibrated:
    feeds = [{"x": RANDOM.random((1, 32, 32, 1), dtype=np.float32)} for _ in range(4)]
    return calibrate(MBN.read_bytes(), feeds, lambda: None)


def test_only_the_biases_of_what_is_quantized_change(mbn: Calibrated) -> None:
    first, *others = (node.name for node in mbn.prepared.nodes)
    biases = correctable(mbn.prepared)
    assert set(biases) == {first, *others}
    before = unpack(mbn.prepared.data)
    after = unpack(correct_biases(mbn.prepared, [first], mbn.observation).data)
    changed = [
        index
        for index, (old, new) in enumerate(zip(*(model.subgraphs[0].tensors for model in (before, after)), strict=True))
        if not np.array_equal(constant(before, old), constant(after, new))  # type: ignore[arg-type]  # None twice is alike
    ]
    assert changed == [biases[first]]


def test_a_bias_that_two_layers_read_and_one_that_is_not_there_stay_as_they_are() -> None:
    specs = [
        Spec("x", (1, 2)),
        Spec("w", (2, 2), value=np.eye(2, dtype=np.float32)),
        Spec("b", (2,), value=np.ones(2, np.float32)),
        Spec("h", (1, 2)),
        Spec("i", (1, 2)),
        Spec("y", (1, 2)),
    ]
    options = tables.FullyConnectedOptionsT()
    steps = [
        Step("FULLY_CONNECTED", (0, 1, 2), (3,), options),
        Step("FULLY_CONNECTED", (3, 1, 2), (4,), options),
        Step("FULLY_CONNECTED", (4, 1, -1), (5,), options),
    ]
    found = calibrate(make(specs, steps, (0,), (5,)), [{"x": np.ones((1, 2), np.float32)}], lambda: None)
    assert correctable(found.prepared) == {}
    assert correct_biases(found.prepared, ["h", "i", "y"], found.observation).data == found.prepared.data
