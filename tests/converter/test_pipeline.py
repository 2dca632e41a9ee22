"""Real conversions of small real networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.converter.graphs import DIGITS, INT8, linear, linear_samples, write_digits

from autoglm_edge_converter import ConversionResult, Options, convert
from autoglm_edge_converter.errors import (
    BadOption,
    BrokenWeights,
    ConversionError,
    OutputUnavailable,
    TooFewSamples,
    UnknownShape,
)
from autoglm_edge_converter.progress import Silent
from autoglm_edge_protocol import bundle


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str, steps: int) -> None:
        self.stages.append(name)

    def step(self, what: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_res_becomes_a_smaller_faster_bundle_that_agrees(converted: ConversionResult) -> None:
    manifest = bundle.verify(converted.directory)
    with bundle.opened(converted.packed) as unpacked:
        assert bundle.verify(unpacked) == manifest
    assert converted.complete
    fp32, int8 = manifest.variants
    assert fp32.id == "fp32"
    assert int8.id in INT8
    assert (fp32.quality.metric, fp32.quality.value) == ("top1-agreement", 1.0)
    assert int8.quality.value >= 0.95
    # The network reaches 37 dB with plain min-max ranges; below 30 something is wrong with them.
    assert (int8.quality.sqnr_db["y"] or 99.0) > 30
    # It is 2.7 times as fast on a quiet machine with VNNI; 1 is the gate that the command itself keeps.
    assert int8.latency.speedup > 1.0
    assert manifest.file(int8.model).size_bytes < 0.3 * manifest.file(fp32.model).size_bytes
    assert (int8.inputs[0].shape, int8.inputs[0].datatype) == ((-1, 1, 32, 32), "FP32")
    assert int8.needs.memory_bytes is not None
    assert 30e6 < int8.needs.memory_bytes < 400e6
    assert any("only 90 samples" in note for note in converted.findings.notes)


def test_the_report_stands_alone(converted: ConversionResult) -> None:
    page = (converted.directory / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert str(converted.directory.parent) not in page
    for word in ("int8", "min-max, per channel", "upgrade-opset", "--max-drop 0.05"):
        assert word in page


def test_the_same_command_again_gives_the_same_bundle_byte_for_byte(tmp_path: Path, digits: Path) -> None:
    """In processes of their own with other hash seeds, since the order of sets must not matter.

    What was measured comes from the cache; files, report and all that follows are made again.
    """
    found = []
    for seed in ("1", "2"):
        program = (
            "import sys; from pathlib import Path; from autoglm_edge_converter import Options, convert; "
            "convert(*map(Path, sys.argv[1:4]), Options(max_drop=0.2, cache=Path(sys.argv[4])))"
        )
        output = tmp_path / seed
        command = [sys.executable, "-c", program, DIGITS / "mbn.onnx", digits, output, tmp_path / "cache"]
        subprocess.run([str(word) for word in command], check=True, env=os.environ | {"PYTHONHASHSEED": seed})
        found.append(output)
    first, second = (bundle.read_manifest(output / "mbn-1.0.0") for output in found)
    # Said first, since it tells which file differs.
    assert [entry for entry in first.files if entry not in second.files] == []
    assert first == second
    assert len(first.variants) > 1
    packed = [(output / "mbn-1.0.0.bundle").read_bytes() for output in found]
    assert packed[0] == packed[1]


def test_progress_names_the_stages(tmp_path: Path) -> None:
    heard = Heard()
    samples = linear_samples(tmp_path / "s.npz")
    convert(linear(tmp_path / "m.onnx"), samples, tmp_path / "out", Options(precisions=("fp32",)), heard)
    assert heard.stages == ["load", "optimise", "measure", "bundle"]


def test_an_old_opset_is_upgraded(tmp_path: Path) -> None:
    samples = linear_samples(tmp_path / "s.npz")
    result = convert(linear(tmp_path / "m.onnx", opset=11), samples, tmp_path / "out", Options(precisions=("fp32",)))
    assert result.manifest.variants[0].needs.min_version == "1.12"
    model = onnx.load(result.directory / "variants/fp32/model.onnx")
    assert model.opset_import[0].version == 17
    assert [node.op_type for node in model.graph.node] == ["Gemm"]


def test_a_budget_of_nothing_ships_only_what_answers_alike(tmp_path: Path) -> None:
    heard = Heard()
    samples = write_digits(tmp_path / "s.npz", 120)
    result = convert(_lopsided(tmp_path / "m.onnx"), samples, tmp_path / "out", Options(max_drop=0.0), heard)
    assert result.manifest.variants[0].id == "fp32"
    assert all(variant.quality.value == 1.0 for variant in result.manifest.variants)
    assert result.findings.search is not None
    assert result.complete == (not any("no int8 variant" in note for note in heard.notes))
    for entry in result.findings.considered:
        assert entry.outcome == "shipped" or entry.outcome.startswith(("it ", "another ", "its "))


def _lopsided(path: Path) -> Path:
    """Two products whose inner activation has a channel a thousand times the rest: ruined by a scale for all."""
    random = np.random.default_rng(3)
    first = random.normal(size=(1024, 64)).astype(np.float32) / 32
    first[:, 0] *= 3000
    second = random.normal(size=(64, 10)).astype(np.float32)
    second[0] /= 3000
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("MatMul", ["f", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["y"]),
        ],
        "lopsided",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 1, 32, 32))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 10))],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_samples_of_different_shapes_and_two_inputs(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "pair",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ("N", "T", 8)),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ("N", "T", 4)),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", "T", 4))],
        [numpy_helper.from_array(np.ones((8, 4), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    folder = tmp_path / "samples"
    folder.mkdir()
    for number in range(12):
        shape = (1, 3 + number % 4)
        a, b = np.random.default_rng(number).normal(size=(2, *shape, 8)).astype(np.float32)
        np.savez(folder / f"{number}.npz", a=a, b=b[..., :4])
    result = convert(tmp_path / "m.onnx", folder, tmp_path / "out", Options(precisions=("fp32",)))
    assert result.manifest.variants[0].quality.metric == "fidelity"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(name="Not A Name"), "a name has"),
        (Options(version="1/2"), "a version 0-9"),
        (Options(max_drop=1.5), "--max-drop is a fraction"),
        (Options(precisions=("int4",)), "'int4' is not known: choose fp32 or fp16 or int8"),
        (Options(seed=-1), "--seed"),
        (Options(int8_io=True, formats=("tflite",), precisions=("fp16",)), "add --precision int8"),
        (Options(labels=Path("nowhere.txt")), "is not a file"),
        (Options(shapes=(("x", (1, 9)),)), "--shape x"),
    ],
)
def test_options_that_do_not_fit_are_said(tmp_path: Path, options: Options, says: str) -> None:
    with pytest.raises(BadOption, match=says):
        convert(linear(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz"), tmp_path / "out", options)
    assert not list(tmp_path.glob("out/*"))


class Stages(Silent):
    """Keeps the names of the stages that were begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def stage(self, name: str, steps: int) -> None:
        self.begun.append(name)


def test_labels_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    model, samples = linear(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz")
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    options = Options(labels=labels, license=labels, precisions=("fp32",))
    stages = Stages()
    with pytest.raises(BadOption, match="3 labels, the model has 4 classes"):
        convert(model, samples, tmp_path / "out", options, stages)
    assert stages.begun == ["load"], "it is said before the search"
    labels.write_text("a\nb\nc\nd")
    result = convert(model, samples, tmp_path / "out", options)
    assert (result.directory / "labels.txt").read_text() == "a\nb\nc\nd\n"
    assert result.manifest.license == "LICENSE"


@pytest.mark.parametrize(("count", "error"), [(1, TooFewSamples), (2, TooFewSamples)])
def test_one_sample_is_too_few(tmp_path: Path, count: int, error: type[ConversionError]) -> None:
    with pytest.raises(error, match=f"{count} calibration sample"):
        convert(linear(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz", count), tmp_path / "out")


def test_an_unknown_rank_asks_for_a_shape_and_takes_it(tmp_path: Path) -> None:
    model, samples = linear(tmp_path / "m.onnx", axes=None), linear_samples(tmp_path / "s.npz")
    with pytest.raises(UnknownShape, match="--shape x="):
        convert(model, samples, tmp_path / "out")
    options = Options(shapes=(("x", (-1, 8)),), precisions=("fp32",))
    assert convert(model, samples, tmp_path / "out", options).complete


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Log", ["x"], ["y"])],
        "logarithm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 8))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(BrokenWeights, match="gives NaN in 'y'"):
        convert(tmp_path / "m.onnx", linear_samples(tmp_path / "s.npz"), tmp_path / "out")


def test_a_bundle_is_not_overwritten_without_being_asked(tmp_path: Path) -> None:
    model, samples = linear(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz")
    options = Options(precisions=("fp32",))
    first = convert(model, samples, tmp_path / "out", options)
    with pytest.raises(OutputUnavailable, match=r"exists already.*--force"):
        convert(model, samples, tmp_path / "out", options)
    (first.directory / "stray").write_text("left by hand")
    again = convert(model, samples, tmp_path / "out", Options(precisions=("fp32",), force=True))
    assert not (again.directory / "stray").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["m-1.0.0", "m-1.0.0.bundle"]


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file is in the way")
    with pytest.raises(OutputUnavailable, match=r"cannot write to .*: choose another --output"):
        convert(linear(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz"), tmp_path / "out")


def test_what_interrupts_leaves_nothing_behind(tmp_path: Path) -> None:
    class Interrupting(Heard):
        def stage(self, name: str, steps: int) -> None:
            if name == "bundle":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(
            linear(tmp_path / "m.onnx"),
            linear_samples(tmp_path / "s.npz"),
            tmp_path / "out",
            Options(precisions=("fp32",)),
            Interrupting(),
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_the_manifest_tells_where_the_bundle_came_from(converted: ConversionResult) -> None:
    provenance = json.loads((converted.directory / "manifest.json").read_text())["provenance"]
    assert provenance["source"]["file"] == "res.onnx"
    assert provenance["plan"]["max_drop"] == 0.05
    assert provenance["versions"]["onnxruntime"]


def gated(path: Path) -> Path:
    """Write y = (x W) * (1 if rate is 16 else 2), rate being a number without axes, in two branches."""
    matrix = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)

    def branch(name: str, factor: float) -> onnx.GraphProto:
        number = numpy_helper.from_array(np.array(factor, np.float32), f"{name}_factor")
        node = helper.make_node("Mul", ["p", f"{name}_factor"], [f"{name}_y"], f"{name}_scale")
        value = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [value], [number])

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
            helper.make_node("Equal", ["rate", "sixteen"], ["same"], "compare"),
            helper.make_node("If", ["same"], ["y"], "choice", then_branch=branch("a", 1), else_branch=branch("b", 2)),
        ],
        "gated",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 8)),
            helper.make_tensor_value_info("rate", TensorProto.INT64, ()),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 4))],
        [numpy_helper.from_array(matrix, "w"), numpy_helper.from_array(np.array(16, np.int64), "sixteen")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)
    return path


@pytest.mark.slow
def test_inputs_without_axes_are_converted_with(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(60, 1, 8)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=x, rate=random.choice([8, 16], 60).astype(np.int64))
    result = convert(gated(tmp_path / "m.onnx"), tmp_path / "s.npz", tmp_path / "out")
    fp32 = result.manifest.variants[0]
    assert [(entry.name, entry.datatype, entry.shape) for entry in fp32.inputs][1] == ("rate", "INT64", ())
    assert fp32.quality.value == 1.0
    bundle.verify(result.directory)
    assert len(result.manifest.variants) > 1 or result.findings.refusals
