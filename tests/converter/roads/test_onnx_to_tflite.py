"""From ONNX to TFLite: the same ports and answers, or one line that says what stood in the way."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from magika import Magika
from onnx import TensorProto, helper, numpy_helper
from tests.converter.graphs import DIGITS, linear
from tests.converter.kept_environments import kept_environments
from tests.fakes.processes import is_alive

from autoglm_edge_converter.environments import ENVIRONMENTS, FOLDER_VARIABLE, environments_folder, find_environment
from autoglm_edge_converter.oldest_runtime import check_in_oldest, ready_runtime
from autoglm_edge_converter.original import Rendition
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.roads.onnx_to_tflite import road, to_tflite
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.targets import Runtime
from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.golden import compare

__all__ = ["kept_environments"]

FLOAT = TensorProto.FLOAT
Ports = Sequence[tuple[str, int, Sequence[int | str]]]


def write(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: Ports, outputs: Ports, weights: dict[str, Array] | None = None
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def normal(*shape: int) -> Array:
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


def convolution(path: Path, shape: Sequence[int], kernel: Sequence[int]) -> Path:
    """One convolution without padding, its output spatial like its input."""
    sizes = [size - reach + 1 for size, reach in zip(shape[2:], kernel[2:], strict=True)]
    node = helper.make_node("Conv", ["x", "w"], ["y"], "convolution")
    return write(path, [node], [("x", FLOAT, shape)], [("y", FLOAT, [1, kernel[0], *sizes])], {"w": normal(*kernel)})


def pictures(count: int) -> list[Feed]:
    with np.load(DIGITS / "digits32.npz") as digits:
        return [{"x": (image[None, None] / 255).astype(np.float32)} for image in digits["test"][-count:]]


def least_sqnr_db(model: Path, rendition: Rendition, feeds: Sequence[Feed]) -> float:
    """Of all outputs, which must have the same shapes and dtypes; infinite where they are equal."""
    assert rendition.path is not None, rendition.problem
    ours, theirs = open_runner(model), open_runner(rendition.path)
    pairs = [list(zip(ours.run(feed), theirs.run(feed), strict=True)) for feed in feeds]
    found = []
    for number in range(len(pairs[0])):
        agreement = compare([p[number][0] for p in pairs], [p[number][1] for p in pairs])
        assert agreement.finite
        assert {p[number][0].dtype for p in pairs} == {p[number][1].dtype for p in pairs}
        found.append(np.inf if agreement.equal == 1 else agreement.sqnr_db)
    assert None not in found
    return float(min(value for value in found if value is not None))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["res", "mbn"])
def test_the_digits_networks_keep_100_db_and_run_in_the_oldest_litert(name: str, tmp_path: Path) -> None:
    model, feeds = DIGITS / f"{name}.onnx", pictures(200)
    rendition = to_tflite(model, tmp_path / f"{name}.tflite", {}, Silent(), feeds)
    assert rendition == Rendition("tflite", tmp_path / f"{name}.tflite", f"onnx2tf {road().split()[1]}")
    # Measured 133 dB: single precision, another order of sums.
    assert least_sqnr_db(model, rendition, feeds) >= 100
    assert rendition.path is not None
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.tflite"]
    expected = [open_runner(rendition.path).run(feed) for feed in feeds[:2]]
    verdict = check_in_oldest(rendition.path, ready_runtime(Runtime("litert", "1.0")), feeds[:2], expected, tmp_path)
    assert verdict.ran
    assert verdict.problem is None


@pytest.mark.slow
def test_a_classifier_of_bytes_keeps_100_db(tmp_path: Path) -> None:
    model = next((Path(sys.modules[Magika.__module__].__file__ or "").parent / "models").rglob("*.onnx"))
    text = np.frombuffer(Path(__file__).read_bytes()[:2048], np.uint8).astype(np.int32)
    feeds: list[Feed] = [{"bytes": np.roll(text, shift)[None]} for shift in (0, 100)]
    rendition = to_tflite(model, tmp_path / "magika.tflite", {"bytes": [1, 2048]}, Silent(), feeds)
    assert least_sqnr_db(model, rendition, feeds) >= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ([1, 4, 4, 4], [4, 4, 1, 1]),  # a cube: only the answers tell one layout from the other
        ([1, 3, 6, 5], [2, 3, 2, 2]),
        ([1, 2, 9], [3, 2, 2]),
        ([1, 2, 5, 6, 7], [3, 2, 2, 2, 2]),
    ],
    ids=str,
)
def test_spatial_outputs_keep_channels_first(shape: list[int], kernel: list[int], tmp_path: Path) -> None:
    model = convolution(tmp_path / "model.onnx", shape, kernel)
    feeds: list[Feed] = [{"x": normal(*shape)}]
    rendition = to_tflite(model, tmp_path / "model.tflite", {}, Silent(), feeds)
    assert least_sqnr_db(model, rendition, feeds) >= 100


@pytest.mark.slow
def test_ports_keep_order_names_and_types(tmp_path: Path) -> None:
    model = write(
        tmp_path / "model.onnx",
        [
            helper.make_node("Gather", ["table", "words"], ["rows"]),
            helper.make_node("Cast", ["rate"], ["rate_f"], to=FLOAT),
            helper.make_node("Mul", ["rows", "rate_f"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled"], ["mean/of:rows"], axes=[1], keepdims=0),
            helper.make_node("ArgMax", ["mean/of:rows"], ["best"], axis=1, keepdims=0),
            helper.make_node("Greater", ["mean/of:rows", "zero"], ["above"]),
        ],
        [("words", TensorProto.INT64, ["N", 7]), ("rate", TensorProto.INT64, [])],
        [("above", TensorProto.BOOL, ["N", 5]), ("mean/of:rows", FLOAT, ["N", 5]), ("best", TensorProto.INT64, ["N"])],
        {"table": normal(100, 5), "zero": np.zeros(1, np.float32)},
    )
    words = np.arange(7, dtype=np.int64)[None] * 13
    feeds: list[Feed] = [{"words": words, "rate": np.array(3)}, {"words": words + 4, "rate": np.array(-1)}]
    rendition = to_tflite(model, tmp_path / "model.tflite", {}, Silent(), feeds)
    assert least_sqnr_db(model, rendition, feeds) >= 100
    assert rendition.path is not None
    written = read_model(rendition.path.read_bytes())
    assert [(port.name, port.dtype, port.shape) for port in written.inputs] == [
        ("words", "int64", (1, 7)),
        ("rate", "int64", ()),
    ]
    assert [port.name for port in written.outputs] == ["above", "mean/of:rows", "best"]


@pytest.mark.slow
def test_an_operator_that_tflite_does_not_have_is_named_with_its_node(tmp_path: Path) -> None:
    node = helper.make_node("Unique", ["x"], ["y"], "only once", sorted=1)
    model = write(tmp_path / "model.onnx", [node], [("x", FLOAT, [8])], [("y", FLOAT, ["n"])])
    rendition = to_tflite(model, tmp_path / "model.tflite", {}, Silent())
    assert rendition.path is None
    assert rendition.problem == (
        "TFLite has no operator for Unique (node 'only once'), and onnx2tf knows no replacement"
    )
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.slow
def test_an_axis_that_is_free_must_be_given(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model = write(tmp_path / "model.onnx", [node], [("x", FLOAT, ["N", "T"])], [("y", FLOAT, ["N", "T"])])
    rendition = to_tflite(model, tmp_path / "model.tflite", {}, Silent())
    assert rendition.problem is not None
    assert "input 'x' has a free axis" in rendition.problem
    assert to_tflite(model, tmp_path / "model.tflite", {"x": [1, 6]}, Silent()).problem is None


# onnx2tf at its worst: an environment in which the package of that name misbehaves. ----

_MISBEHAVIOUR = {
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "gives up": "import sys; sys.exit('Relu is not for me')",
    "raises": "raise NotImplementedError('node Relu_0 (Relu)\\nis not supported')",
    "says nothing": "import os; os._exit(3)",
    "writes nothing": "pass",
    "writes rubbish": "save(b'rubbish' * 100)",
    "writes another model": "save(open(FOREIGN, 'rb').read())",
    "hangs": "import subprocess; print(subprocess.Popen(['sleep', '987']).pid, file=open(FOREIGN + '.pid', 'w')); "
    "import time; time.sleep(987)",
}

_PACKAGE = """
FOREIGN = {foreign!r}
def convert(output_folder_path, **options):
    import pathlib
    def save(data):
        pathlib.Path(output_folder_path).mkdir()
        (pathlib.Path(output_folder_path) / "model_float32.tflite").write_bytes(data)
    {body}
"""


def misbehaving(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch, foreign: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    environment = ENVIRONMENTS["onnx2tf"]
    digest = sha256_of(environment.requirements.read_bytes() + environment.pythons[0].encode())
    place = folder / f"onnx2tf-{digest[:12]}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "onnx2tf.py").write_text(_PACKAGE.format(foreign=str(foreign), body=_MISBEHAVIOUR[how]))
    assert find_environment("onnx2tf") == place / "bin" / "python"
    assert environments_folder() == folder


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("crashes", "it crashed: ended by signal 11"),
        ("gives up", "it refuses the model: Relu is not for me"),
        ("raises", "it refuses the model: node Relu_0 (Relu) is not supported"),
        ("says nothing", "it crashed: ended with code 3"),
        ("writes nothing", "it refuses the model: onnx2tf wrote 0 float files"),
        ("writes rubbish", "what onnx2tf wrote is no TFLite model: export it with TensorFlow's or LiteRT's converter"),
        ("writes another model", "it made float32 [?, 32, 32, 1] of input 'x', which is float32 [1, 8]"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    how: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehaving(tmp_path / "environments", how, monkeypatch, DIGITS / "mbn.tflite")
    (tmp_path / "work").mkdir()
    rendition = to_tflite(linear(tmp_path / "model.onnx"), tmp_path / "work" / "model.tflite", {}, Silent())
    assert (rendition.path, rendition.problem) == (None, problem)
    assert list((tmp_path / "work").iterdir()) == []


def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misbehaving(tmp_path / "environments", "hangs", monkeypatch, tmp_path / "child")
    started = time.monotonic()
    rendition = to_tflite(linear(tmp_path / "model.onnx"), tmp_path / "model.tflite", {}, Silent(), converting_s=3.0)
    assert rendition.problem == "it did not end within 3 s"
    assert time.monotonic() - started < 60
    child = int((tmp_path / "child.pid").read_text())
    until = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_refused_with_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of another network in a graph of the same shape."""
    other = to_tflite(linear(tmp_path / "other.onnx", weights=0.11), tmp_path / "other.tflite", {}, Silent())
    assert other.path is not None
    misbehaving(tmp_path / "environments", "writes another model", monkeypatch, other.path)
    rendition = to_tflite(linear(tmp_path / "model.onnx"), tmp_path / "model.tflite", {}, Silent())
    assert rendition.problem is not None
    assert rendition.problem.startswith("the TFLite file computes something else: 'y' is ")
    assert rendition.problem.endswith(" dB from the original's, at least 60 needed")
