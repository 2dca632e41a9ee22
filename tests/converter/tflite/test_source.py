"""Loading originals that are TFLite files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.tflite.files import MBN, Spec, Step, difference, foreign, make

from autoglm_edge_converter.errors import BadOption, BrokenWeights, NotAModel, UnknownOperator
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tensors import Port
from autoglm_edge_converter.tflite.source import load_tflite


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "given.tflite"
    path.write_bytes(data)
    return path


def test_a_file_is_its_own_rendition_and_answers_alike(tmp_path: Path) -> None:
    found = load_tflite(MBN, {}, tmp_path)
    assert (found.framework, found.size_bytes) == ("tflite", MBN.stat().st_size)
    assert found.inputs == (Port("x", "float32", (None, 32, 32, 1)),)
    assert [(entry.format, entry.path, entry.problem) for entry in found.renditions] == [
        ("tflite", found.runnable, None)
    ]
    feed = {"x": np.random.default_rng(1).random((2, 32, 32, 1), np.float32)}
    np.testing.assert_array_equal(open_runner(found.runnable).run(feed)[0], open_runner(MBN).run(feed)[0])


def test_free_axes_can_be_fixed(tmp_path: Path) -> None:
    found = load_tflite(_written(tmp_path, difference()), {"first": (4, 2), "second": (4, 2)}, tmp_path)
    assert [port.shape for port in found.inputs] == [(4, 2), (4, 2)]
    feed = {name: np.ones((4, 2), np.float32) for name in ("first", "second")}
    assert open_runner(found.runnable).run(feed)[0].shape == (4, 2)
    with pytest.raises(BadOption):
        load_tflite(_written(tmp_path, difference()), {"third": (4, 2)}, tmp_path)


def test_what_cannot_be_converted_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="is not a file"):
        load_tflite(tmp_path / "none.tflite", {}, tmp_path)
    with pytest.raises(NotAModel, match=r"given\.tflite is no TFLite model"):
        load_tflite(_written(tmp_path, b"some text, no model at all"), {}, tmp_path)
    with pytest.raises(UnknownOperator, match="operator Swirl"):
        load_tflite(_written(tmp_path, foreign()), {}, tmp_path)
    broken = make(
        [Spec("x", (1, 2)), Spec("w", (2,), value=np.array([1, np.nan], np.float32)), Spec("y", (1, 2))],
        [Step("ADD", (0, 1), (2,))],
        (0,),
        (2,),
    )
    with pytest.raises(BrokenWeights, match="weight 'w' holds NaN"):
        load_tflite(_written(tmp_path, broken), {}, tmp_path)
