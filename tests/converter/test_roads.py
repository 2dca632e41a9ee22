"""Digits as PNG files in class folders and as arrays: two roads to the same figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.data.files import write_png_digits
from tests.converter.graphs import DIGITS

from autoglm_edge_converter import ConversionResult, Options, convert


def write_arrays(folder: Path, images: Path) -> Path:
    """The files' digits in the files' order, with labels."""
    files = sorted(images.rglob("*.png"), key=lambda path: path.relative_to(images).as_posix())
    with np.load(DIGITS / "digits32.npz") as digits:
        pixels = digits["test"][[int(path.stem) for path in files], None]
    np.savez(
        folder / "digits.npz",
        x=(pixels / 255).astype(np.float32),
        labels=np.array([int(path.parent.name) for path in files]),
    )
    return folder / "digits.npz"


def both(tmp_path: Path, model: str, count: int, options: Options) -> tuple[ConversionResult, ConversionResult]:
    images = write_png_digits(tmp_path / "digits", count)
    arrays = write_arrays(tmp_path, images)
    found = [convert(DIGITS / model, path, tmp_path / f"out-{path.name}", options) for path in (images, arrays)]
    return found[0], found[1]


@pytest.mark.parametrize("model", ["mbn.onnx", "res.onnx"])
def test_both_roads_give_the_float_variant_the_same_quality(tmp_path: Path, model: str) -> None:
    by_images, by_arrays = both(tmp_path, model, 150, Options(precisions=("fp32",)))
    one, other = by_images.manifest, by_arrays.manifest
    assert one.variants[0].quality == other.variants[0].quality
    assert one.variants[0].quality.metric == "accuracy"
    assert one.variants[0].quality.value >= 0.97
    assert one.file(one.golden) == other.file(other.golden)
    assert one.preprocessing is not None
    assert other.preprocessing is None


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mbn.onnx", "res.onnx"])
def test_both_roads_search_alike(tmp_path: Path, model: str) -> None:
    by_images, by_arrays = both(tmp_path, model, 300, Options(max_drop=0.03))
    trials = [
        {str(trial.candidate): trial.score for trial in result.findings.search.trials}
        for result in (by_images, by_arrays)
        if result.findings.search is not None
    ]
    assert len(trials) == 2
    shared = trials[0].keys() & trials[1].keys()
    assert len(shared) >= 5
    assert all(trials[0][name] == trials[1][name] for name in shared), "to the last bit"
    for result in (by_images, by_arrays):
        eight = [variant for variant in result.manifest.variants if variant.precision != "fp32"]
        assert eight
        for variant in eight:
            quality = variant.quality
            assert quality.metric == "accuracy"
            assert (quality.baseline - quality.value) / quality.baseline <= 0.03 + 1e-9
