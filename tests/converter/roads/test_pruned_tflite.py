"""Channels taken out of an ONNX graph are gone from the TFLite variant too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS, write_digits
from tests.converter.kept_environments import kept_environments

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tflite.flatbuffer import read_model

__all__ = ["kept_environments"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_network_pruned_in_onnx_is_shipped_in_tflite(tmp_path: Path) -> None:
    samples = write_digits(tmp_path / "samples.npz", 240)
    # Float alone, and smaller is enough: what is quantized of it is the search's, and tested with that.
    options = Options(
        formats=("onnx", "tflite"), prune="0.5", precisions=("fp32",), max_size_bytes=2 * 10**6, max_drop=0.05
    )
    result = convert(DIGITS / "res.onnx", samples, tmp_path / "out", options)
    whole, pruned = (result.manifest.variant(name) for name in ("tflite-fp32", "tflite-fp32-pruned"))
    assert whole is not None
    assert pruned is not None, [(entry.form, entry.outcome) for entry in result.findings.considered]
    assert 0.3 < pruned.pruning < 0.9
    before, after = (read_model((result.directory / entry.model).read_bytes()) for entry in (whole, pruned))
    assert after.weights_bytes == pytest.approx(before.weights_bytes * (1 - pruned.pruning), rel=0.05)
    with np.load(DIGITS / "digits32.npz") as digits:
        images, labels = digits["test"][240:, None].astype(np.float32) / 255, digits["test_labels"][240:]
    runner = open_runner(result.directory / pruned.model)
    answers = np.concatenate([runner.run({"x": image[None]})[0] for image in images])
    assert (answers.argmax(1) == labels).mean() >= 0.95
