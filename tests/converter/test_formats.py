"""What a written file asks of a device, by its format."""

from __future__ import annotations

from pathlib import Path

import onnx
from tests.converter.graphs import DIGITS

from autoglm_edge_converter.formats import format_of, installed_runtime, opset_in, readers_of, unfit
from autoglm_edge_converter.targets import demands_of

ONNX_FILE, TFLITE_FILE = DIGITS / "mbn.onnx", DIGITS / "mbn.tflite"


def test_the_readers_of_a_file_are_those_of_its_format() -> None:
    assert (format_of(ONNX_FILE), format_of(TFLITE_FILE)) == ("onnx", "tflite")
    found = readers_of(ONNX_FILE)
    assert (found.runtime, found.others) == ("onnxruntime", ())
    assert found.oldest is not None
    found = readers_of(TFLITE_FILE)
    assert (found.runtime, found.oldest) == ("litert", "1.0")
    assert installed_runtime("onnx").startswith("onnxruntime 1.")
    assert installed_runtime("tflite").startswith("LiteRT ")


def test_a_file_that_is_too_new_or_too_large_is_refused(tmp_path: Path) -> None:
    demands = demands_of(["rpi-zero2w"])
    new = tmp_path / "new.onnx"
    proto = onnx.load(ONNX_FILE)
    proto.opset_import[0].version = 23
    onnx.save(proto, new)
    assert opset_in(new) == 23
    assert unfit(ONNX_FILE, 100 * 2**20, demands) is None
    assert "operator set 23" in (unfit(new, None, demands) or "")
    assert "512 MB" in (unfit(ONNX_FILE, 600 * 2**20, demands) or "")
    assert unfit(new, 600 * 2**20, demands_of([])) is None


def test_an_operator_that_the_oldest_runtime_does_not_read_is_named(tmp_path: Path) -> None:
    from autoglm_edge_converter.tflite.editing import serialize, unpack

    demands = demands_of(["armv7"], ("tflite",))
    assert unfit(TFLITE_FILE, None, demands) is None
    changed = unpack(TFLITE_FILE.read_bytes())
    for code in changed.operatorCodes:
        code.version = 99
    newer = tmp_path / "newer.tflite"
    newer.write_bytes(serialize(changed))
    assert "tflite-runtime 2.14 reads" in (unfit(newer, None, demands) or "")
    assert readers_of(newer).oldest is None
