"""The example of Fashion-MNIST: it trains, and both float formats answer as the network does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.converter.tensorflow.roads import assert_same_answers, go

EXAMPLE = Path(__file__).parents[3] / "examples" / "fashion_mnist_keras" / "train.py"


@pytest.mark.slow
@pytest.mark.timeout(600)  # training alone may take three minutes on two cores
def test_the_example_trains_and_both_formats_answer_alike(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLE, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "test.npz") as test:
        images, labels = test["image"], test["labels"]
    journey = go("keras", tmp_path / "fashion.keras", tmp_path / "scratch")
    (scores,) = assert_same_answers(journey, {"image": images}, tolerance=1e-3)  # scores reach 30
    # Two epochs reach 88 % on clothes and more on digits; less means that training or the weights went wrong.
    assert (scores.argmax(1) == labels).mean() > 0.85
