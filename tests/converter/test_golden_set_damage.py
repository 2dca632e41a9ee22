"""The golden set of a bundle refuses every variant in it once one of its layers is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from tests.converter.graphs import DIGITS, int8_in, write_digits

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.verify import replay
from autoglm_edge_protocol import golden

Weights = npt.NDArray[np.float64]


def no_channel(weights: Weights) -> Weights:
    """Zero the larger half of the output channels."""
    strength = np.abs(weights).reshape(len(weights), -1).sum(axis=1)
    kept = strength < np.median(strength)
    return np.asarray(weights * kept.reshape(-1, *[1] * (weights.ndim - 1)), np.float64)


DAMAGES: dict[str, Callable[[Weights], Weights]] = {
    "zeroed": lambda weights: weights * 0,
    "negated": lambda weights: -weights,
    "halved": lambda weights: weights / 2,
    "doubled": lambda weights: weights * 2,
    "channels turned": lambda weights: np.roll(weights, 1, axis=0),
    "half of the channels gone": no_channel,
}


def weights_of(model: onnx.ModelProto) -> list[int]:
    """Return the places of weights among the initializers: arrays of two axes or more, not counting shapes."""
    return [
        place
        for place, tensor in enumerate(model.graph.initializer)
        if len(tensor.dims) >= 2 and numpy_helper.to_array(tensor).dtype in (np.float32, np.float16, np.int8, np.uint8)
    ]


def damaged(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    for place in weights_of(model):
        tensor = model.graph.initializer[place]
        weights = numpy_helper.to_array(tensor)
        zero = 128.0 if weights.dtype == np.uint8 else 0.0
        for kind, damage in DAMAGES.items():
            changed = damage(weights.astype(np.float64) - zero) + zero
            if np.issubdtype(weights.dtype, np.integer):
                limits = np.iinfo(weights.dtype)
                changed = np.clip(np.round(changed), limits.min, limits.max)
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            copy.graph.initializer[place].CopyFrom(numpy_helper.from_array(changed.astype(weights.dtype), tensor.name))
            yield f"{tensor.name} {list(tensor.dims)} {kind}", copy


@pytest.mark.slow
@pytest.mark.parametrize("network", ["res", "mbn"])
def test_damage_to_any_layer_is_refused(tmp_path: Path, network: str) -> None:
    samples = write_digits(tmp_path / "samples.npz", 160)
    options = Options(max_drop=0.05, precisions=("fp32", "fp16", "int8"))
    result = convert(DIGITS / f"{network}.onnx", samples, tmp_path / "out", options)
    samples_of_set = golden.load(result.directory / result.manifest.golden)
    names = [variant.id for variant in result.manifest.variants]
    assert "fp32" in names
    assert int8_in(names)
    for variant in result.manifest.variants:
        model = onnx.load(result.directory / variant.model)
        tried, passed = 0, list[str]()
        for what, broken in damaged(model):
            onnx.save(broken, tmp_path / "broken.onnx")
            tried += 1
            if not replay(tmp_path / "broken.onnx", variant, samples_of_set):
                passed.append(what)
        assert tried >= 10 * len(DAMAGES)
        assert passed == [], f"{variant.id}: {len(passed)} of {tried} pass"
