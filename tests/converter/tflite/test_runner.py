"""Running TFLite files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS
from tests.converter.tflite.files import MBN, difference, foreign, remembering

from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tensors import Array


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _digits(count: int) -> Array:
    with np.load(DIGITS / "digits32.npz") as digits:
        found: Array = digits["test"][:count, :, :, None].astype(np.float32) / 255
    return found


def test_the_digits_network_answers_as_its_onnx_form_does() -> None:
    images = _digits(16)
    found = np.concatenate([open_runner(MBN).run({"x": image[None]})[0] for image in images])
    (expected,) = open_runner(DIGITS / "mbn.onnx").run({"x": images.transpose(0, 3, 1, 2)})
    # The same float network by other kernels: rounding only.
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_inputs_are_resized_to_what_is_fed_back_and_forth() -> None:
    runner, images = open_runner(MBN), _digits(4)
    (together,) = runner.run({"x": images})
    alone = np.concatenate([runner.run({"x": image[None]})[0] for image in images])
    (again,) = runner.run({"x": images})
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(together, again)


def test_a_run_remembers_nothing_of_the_one_before(tmp_path: Path) -> None:
    runner = open_runner(_written(tmp_path / "cell.tflite", remembering()))
    x = np.ones((1, 2), np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(runner.run({"x": x})[0], x)


def test_inputs_are_told_apart_by_name(tmp_path: Path) -> None:
    runner = open_runner(_written(tmp_path / "d.tflite", difference(({"b": 1, "a": 0}, {"c": 2}))))
    one, two = np.ones((3, 2), np.float32), np.full((3, 2), 2, np.float32)
    np.testing.assert_array_equal(runner.run({"b": one, "a": two})[0], one)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    runner = open_runner(_written(tmp_path / "d.tflite", difference()))
    one = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match="no input 'third', its inputs are: first, second"):
        runner.run({"first": one, "third": one})
    with pytest.raises(ValueError, match="no value for input 'second'"):
        runner.run({"first": one})
    with pytest.raises(ValueError, match="'second' takes float32, not float64"):
        runner.run({"first": one, "second": one.astype(np.float64)})
    with pytest.raises((ValueError, RuntimeError)):
        runner.run({"first": one, "second": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(runner.run({"first": one, "second": one})[0], one - one)


def test_an_operator_that_the_runtime_does_not_know_is_its_error(tmp_path: Path) -> None:
    with pytest.raises((ValueError, RuntimeError), match="Swirl"):
        open_runner(_written(tmp_path / "s.tflite", foreign())).run({"x": np.ones((1, 2), np.float32)})
