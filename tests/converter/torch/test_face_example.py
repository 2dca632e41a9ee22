"""The example with faces: from PyTorch to both formats, judged on its labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.processor import own_units
from autoglm_edge_converter.runners import open_runner

EXAMPLE = Path(__file__).parents[3] / "examples" / "face_pytorch"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "faces.npz"
    subprocess.run([sys.executable, str(EXAMPLE / "prepare.py"), str(path)], check=True)
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_faces_are_told_as_well_in_8_bits_in_both_formats(faces: Path, tmp_path: Path) -> None:
    options = Options(shapes=(("x", (1, 3, 24, 24)),), budget_s=20, cache=None)
    result = convert(f"{EXAMPLE / 'rnet.py'}:face_only", faces, tmp_path, options)
    with np.load(faces) as archive:
        pictures, labels = archive["x"], archive["labels"]
    assert pictures.shape == (200, 3, 24, 24)
    seen = set()
    for variant in result.manifest.variants:
        (path,) = (result.directory / "variants" / variant.id).iterdir()
        runner = open_runner(path)
        answers = np.concatenate([runner.run({"x": picture[None]})[0] for picture in pictures])
        # One picture in two hundred: float has all of them right.
        assert (answers.argmax(axis=1) == labels).mean() >= 0.995, variant.id
        seen.add((path.suffix, "int8" in variant.id))
    assert {suffix for suffix, _ in seen} == {".onnx", ".tflite"}
    if "vnni" in own_units() or "dotprod" in own_units():
        assert (".tflite", True) in seen
    elif (".tflite", True) not in seen:
        # Without such instructions XNNPACK is slower on 8 bits than in float: nothing ships, and it is said why.
        reasons = [refusal.reason for refusal in result.findings.refusals if "tflite" in refusal.precision]
        assert any("than float here" in reason for reason in reasons), result.findings.refusals
