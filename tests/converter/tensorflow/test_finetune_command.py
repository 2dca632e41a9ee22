"""Pruning with training as a user asks for it: the command, a real network, a short training, both formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.converter.tensorflow.roads import DIGITS

from autoglm_edge_converter.runners import open_runner

TUNING = Path(__file__).with_name("tuning.py")
CONVERT = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "convert"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pruned_and_trained_keras_network_is_shipped_in_both_formats(tmp_path: Path) -> None:
    with np.load(DIGITS / "digits32.npz") as digits:
        images = digits["test"][..., None].astype(np.float32) / 255
        labels = digits["test_labels"]
    np.savez(tmp_path / "samples.npz", input_layer=images[:240], labels=labels[:240])
    data = ["--calibration", str(tmp_path / "samples.npz"), "--output", str(tmp_path / "out")]
    prune = ["--finetune", f"{TUNING}:train_briefly", "--prune", "0.4", "--max-drop", "0.1"]
    # Float alone, and smaller is enough: what is quantized of it is the search's, and tested with that.
    wanted = ["--precision", "fp32", "--max-size", "1MB", "--no-cache", "--json"]
    command = [*CONVERT, str(DIGITS / "mbn.keras"), *data, *prune, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    pruned = [variant for variant in found["variants"] if variant["pruning"]]
    assert {variant["format"] for variant in pruned} == {"onnx", "tflite"}, found["considered"]
    for variant in pruned:
        # A fraction of the multiplications is asked for; mbn has most weights in its widest layers, which give most.
        assert 0.2 < variant["pruning"] < 0.7
        runner = open_runner(Path(found["directory"]) / variant["model"])
        answers = np.concatenate([runner.run({"input_layer": image[None]})[0] for image in images[240:]])
        # 99.4 % before; without the training two thirds are lost.
        assert (answers.argmax(1) == labels[240:]).mean() > 0.9, variant["id"]
