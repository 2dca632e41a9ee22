"""Unstructured sparsity: one more variant, smaller under compression, and said to be no faster."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.converter.graphs import DIGITS

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.errors import BadOption


def compressed(path: Path) -> int:
    return len(zlib.compress(path.read_bytes()))


@pytest.mark.slow
def test_a_sparse_variant_ships_beside_the_dense_ones(digits: Path, tmp_path: Path) -> None:
    result = convert(DIGITS / "res.onnx", digits, tmp_path, Options(sparsify=0.3, max_drop=0.1))
    by_id = {variant.id: result.directory / variant.model for variant in result.manifest.variants}
    sparse = next(name for name in by_id if name.endswith("-sparse"))
    (variant,) = (entry for entry in result.manifest.variants if entry.id == sparse)
    assert variant.pruning == pytest.approx(0.3)
    assert any("no faster" in note for note in variant.notes)
    assert any("under compression" in note for note in variant.notes)
    # Where plain 8 bits do not pay on this processor, the dense one on 8 bits keeps some nodes in float.
    dense = [path for name, path in by_id.items() if name.startswith("int8") and name != sparse]
    assert dense
    assert compressed(by_id[sparse]) < 0.9 * min(map(compressed, dense))
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(by_id[sparse]).graph.initializer if len(t.dims) == 4]
    zeros = sum(int((array == 0).sum()) for array in weights) / sum(array.size for array in weights)
    assert zeros >= 0.29, "the zeros are still zeros on 8 bits"
    assert np.isfinite(variant.quality.value)


def test_a_fraction_is_asked_for(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="--sparsify is a fraction"):
        convert(DIGITS / "res.onnx", digits, tmp_path, Options(sparsify=1.5))
