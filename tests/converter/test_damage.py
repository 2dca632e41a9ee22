"""The golden set earns its place: a well-formed model with damaged weights is refused, for every variant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from autoglm_edge_converter import ConversionResult
from autoglm_edge_converter.verify import replay
from autoglm_edge_protocol import golden

Weights = npt.NDArray[Any]
Damage = Callable[[Weights], Weights]


def permuted(weights: Weights) -> Weights:
    return np.ascontiguousarray(np.roll(weights, 1, axis=0))


def halved(weights: Weights) -> Weights:
    return np.multiply(weights, 0.5, dtype=np.float32).astype(weights.dtype)


def zeroed(weights: Weights) -> Weights:
    return np.zeros_like(weights)


def negated(weights: Weights) -> Weights:
    return (-weights.astype(np.float32)).clip(-127, 127).astype(weights.dtype)


def weight_names(model: onnx.ModelProto) -> list[str]:
    """Weights of the inner layers, float or 8-bit, the largest three."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer if len(tensor.dims) == 4}
    return sorted(sizes, key=lambda name: (-sizes[name], name))[:3]


@pytest.mark.parametrize("variant_id", ["fp32", "int8"])
def test_the_variant_as_written_passes(converted: ConversionResult, variant_id: str) -> None:
    variant = next(entry for entry in converted.manifest.variants if entry.id.startswith(variant_id))
    samples = golden.load(converted.directory / converted.manifest.golden)
    assert 8 <= len(samples) <= 16
    assert replay(converted.directory / variant.model, variant, samples) == []


@pytest.mark.parametrize("damage", [permuted, halved, zeroed, negated])
@pytest.mark.parametrize("variant_id", ["fp32", "int8"])
def test_damaged_weights_are_refused(
    tmp_path: Path, converted: ConversionResult, variant_id: str, damage: Damage
) -> None:
    variant = next(entry for entry in converted.manifest.variants if entry.id.startswith(variant_id))
    samples = golden.load(converted.directory / converted.manifest.golden)
    model = onnx.load(converted.directory / variant.model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in weight_names(model):
        kept = tensors[name].SerializeToString()
        tensors[name].CopyFrom(numpy_helper.from_array(damage(numpy_helper.to_array(tensors[name])), name))
        path = tmp_path / "damaged.onnx"
        onnx.save(model, path)
        assert replay(path, variant, samples), f"{damage.__name__} {name} of {variant_id} went unnoticed"
        tensors[name].ParseFromString(kept)
