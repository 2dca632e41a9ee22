"""The example of Fashion-MNIST: it trains and converts, and 8 bits cost next to nothing on the whole test set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm_edge_converter.processor import own_units

EXAMPLE = Path(__file__).parents[3] / "examples" / "fashion_mnist_keras" / "train.py"


def _run(folder: Path, *options: str) -> tuple[str, dict[str, float]]:
    """Run the example and return what it printed and the percentage that each variant has right."""
    command = [sys.executable, str(EXAMPLE), str(folder), *options]
    environment = {**os.environ, "COLUMNS": "400"}  # no line of what is said is parted
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout
    _, _, table = done.stdout.partition("the variants on all")
    return done.stdout, {name: float(right) for name, right in re.findall(r"^(\S+) +([\d.]+)%", table, re.MULTILINE)}


@pytest.mark.slow
@pytest.mark.timeout(1200)  # training alone may take three minutes on two cores, and the conversion as long
def test_clothes_are_told_as_well_in_8_bits(tmp_path: Path) -> None:
    said, right = _run(tmp_path)
    assert "Fashion-MNIST of" in said  # else the package dataset-fashion-mnist is missing: install it
    assert "10000 test images" in said
    assert {"fp32", "tflite-fp32"} <= set(right)
    assert right["fp32"] > 85  # two epochs reach 88 %; less means that training or the weights went wrong
    # One image in ten thousand may stand on the border of two classes.
    assert right["tflite-fp32"] == pytest.approx(right["fp32"], abs=0.011)
    small = {name: share for name, share in right.items() if "int8" in name}
    assert any(not name.startswith("tflite") for name in small)
    if "vnni" in own_units() or "dotprod" in own_units():
        assert any(name.startswith("tflite") for name in small)
    elif not any(name.startswith("tflite") for name in small):
        # Without such instructions XNNPACK is slower on 8 bits than in float: nothing ships, and it is said why.
        assert re.search(r"no tflite-int8 variant: [^\n]*than float here", said), said
    assert min(small.values()) >= right["fp32"] - 0.3, said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_clothes_digits_take_their_place(tmp_path: Path) -> None:
    said, _ = _run(tmp_path, "--digits", "--train-only")
    assert "scikit-learn's digits" in said
    found = re.search(r"500 test images, ([\d.]+)% right", said)
    assert found is not None
    assert float(found.group(1)) > 85
    assert (tmp_path / "fashion.keras").is_file()
