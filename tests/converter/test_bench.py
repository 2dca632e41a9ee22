"""Timing what works on this machine, with the runtime that is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.converter.graphs import DIGITS, int8_in, linear
from tests.converter.test_operators import LIBRARY, with_custom_node

from autoglm_edge_converter import ConversionResult
from autoglm_edge_converter.bench import Report, Settings, bench
from autoglm_edge_converter.bench.inputs import random_feeds
from autoglm_edge_converter.errors import BadOption, ConversionError, NotAModel, UnknownShape
from autoglm_edge_converter.tensors import Port
from autoglm_edge_protocol.errors import ProtocolError

QUICK = Settings(runs=10)
CPU = "CPUExecutionProvider"


@pytest.mark.slow
def test_a_bundle_is_timed_on_its_golden_inputs(converted: ConversionResult) -> None:
    report = bench(converted.packed, Settings(runs=20, threads=(1, 2), providers=(CPU,)))
    assert report.inputs.endswith("golden inputs")
    found = [(contender.form, contender.threads) for contender, _ in report.laps]
    name = int8_in(variant.id for variant in converted.manifest.variants)
    assert found == [("fp32", 1), (name, 1), ("fp32", 2), (name, 2)]
    for _, lap in report.laps:
        assert lap.runs == 20
        assert 0 < lap.median_us <= lap.p90_us
        assert lap.cpu_us > 0
        assert lap.load_us > 0
        assert 20e6 < lap.peak_rss_bytes < 400e6
    assert report.laps[0][1].speedup == 1.0
    # INT8 of this network takes a third of the processor time of float on a quiet machine.
    assert report.laps[1][1].speedup > 1.0


def test_a_provider_that_is_only_listed_is_no_line() -> None:
    """The Azure provider is built into every wheel and runs no local operator."""
    report = bench(DIGITS / "mbn.onnx", QUICK)
    providers = {contender.provider for contender, _ in report.laps}
    assert providers == {CPU}
    import onnxruntime

    listed = set(onnxruntime.get_available_providers()) - providers
    assert {contender.provider for contender, _ in report.problems} == listed


def test_a_provider_that_is_not_built_in_is_a_problem_with_a_reason() -> None:
    report = bench(DIGITS / "mbn.onnx", Settings(runs=3, providers=(CPU, "CUDAExecutionProvider")))
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert len(report.problems) == 1
        assert report.problems[0][1]


def test_a_variant_that_is_damaged_is_a_problem_and_the_others_are_timed(
    converted: ConversionResult, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(converted.directory, copy)
    name = int8_in(variant.id for variant in converted.manifest.variants)
    (copy / "variants" / name / "model.onnx").write_bytes(b"damaged")
    report = bench(copy, Settings(runs=5, providers=(CPU,)))
    assert [contender.form for contender, _ in report.laps] == ["fp32"]
    assert [contender.form for contender, _ in report.problems] == [name]


def test_custom_operators_are_loaded(tmp_path: Path) -> None:
    model = with_custom_node(tmp_path / "m.onnx")
    assert bench(model, Settings(runs=3, ops=(LIBRARY,), providers=(CPU,))).laps
    with pytest.raises(ConversionError, match=r"runs on nothing here: m on CPU, 1 threads: .*NegPos"):
        bench(model, Settings(runs=3, providers=(CPU,)))


def _free(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", "T"))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", "T"))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_free_axes_are_asked_for_and_taken(tmp_path: Path) -> None:
    model = _free(tmp_path / "m.onnx")
    with pytest.raises(BadOption, match=r"free axes \[1,\?\].*--shape x="):
        bench(model, QUICK)
    report: Report = bench(model, Settings(runs=3, shapes={"x": (2, 9)}, providers=(CPU,)))
    assert report.laps[0][1].runs == 3


def test_inputs_are_made_up_by_type() -> None:
    feeds = random_feeds([Port("f", "float16", (None, 3)), Port("i", "int64", (2,)), Port("b", "bool", (2, 2))], 0)
    assert [feeds[0][name].shape for name in "fib"] == [(1, 3), (2,), (2, 2)]
    assert feeds[0]["f"].dtype == np.float16
    assert set(np.unique([feed["i"] for feed in feeds])) <= {0, 1}
    with pytest.raises(BadOption, match="cannot be made up"):
        random_feeds([Port("s", "object", (1,))], 0)
    with pytest.raises(UnknownShape):
        random_feeds([Port("s", "float32", None)], 0)


def test_mistakes_are_said(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("this is no model, " * 20)
    with pytest.raises(NotAModel, match="not an ONNX model"):
        bench(tmp_path / "m.onnx", QUICK)
    with pytest.raises(ProtocolError, match="does not exist"):
        bench(tmp_path / "nothing", QUICK)
    with pytest.raises(BadOption, match="--runs"):
        bench(linear(tmp_path / "l.onnx"), Settings(runs=1))
    with pytest.raises(BadOption, match="--threads"):
        bench(linear(tmp_path / "l.onnx"), Settings(threads=(0,)))


def test_tflite_files_are_timed_with_xnnpack_and_with_the_built_in_kernels() -> None:
    report = bench(DIGITS / "mbn.tflite", QUICK)
    assert [(c.runtime, c.provider) for c, _ in report.laps] == [("litert", "XNNPACK"), ("litert", "built-in")]
    assert report.runtime.startswith("LiteRT ")
    assert report.problems == ()


def test_a_file_without_an_operator_for_xnnpack_is_not_timed_as_if_it_had_one(tmp_path: Path) -> None:
    from tests.converter.tflite.files import remembering

    from autoglm_edge_converter.runners.tflite import delegated

    path = tmp_path / "cell.tflite"
    path.write_bytes(remembering())
    assert not delegated(path)
    report = bench(path, QUICK)
    assert [contender.provider for contender, _ in report.laps] == ["built-in"]
    assert "takes none of the operators" in report.problems[0][1]
