"""Pruning with training as a user asks for it: the command, R-Net, a short training, both formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.converter.torch.test_face_example import EXAMPLE, faces

from autoglm_edge_converter.runners import open_runner

__all__ = ["faces"]

TUNING = Path(__file__).with_name("tuning.py")
CONVERT = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "convert"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pruned_and_trained_face_network_is_shipped_in_both_formats(faces: Path, tmp_path: Path) -> None:
    model = [f"{EXAMPLE / 'rnet.py'}:face_only", "--shape", "x=1,3,24,24"]
    data = ["--calibration", str(faces), "--output", str(tmp_path / "out")]
    prune = ["--finetune", f"{TUNING}:train", "--prune", "0.4", "--max-drop", "0.05"]
    # Float alone, and smaller is enough: what is quantized of it is the search's, and tested with that.
    wanted = ["--precision", "fp32", "--max-size", "1MB", "--no-cache", "--json"]
    done = subprocess.run([*CONVERT, *model, *data, *prune, *wanted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    pruned = [variant for variant in found["variants"] if variant["pruning"]]
    assert {variant["format"] for variant in pruned} == {"onnx", "tflite"}, found["considered"]
    with np.load(faces) as archive:
        pictures, labels = archive["x"][:100], archive["labels"][:100]
    for variant in pruned:
        assert variant["pruning"] >= 0.2
        runner = open_runner(Path(found["directory"]) / variant["model"])
        answers = np.concatenate([runner.run({"x": picture[None]})[0] for picture in pictures])
        # The training saw none of these; float has all of them right.
        assert (answers.argmax(axis=1) == labels).mean() >= 0.95, variant["id"]
