"""The oldest runtimes of the targets, really run: what they read passes, what they refuse is refused in their words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.converter.graphs import DIGITS, linear
from tests.converter.kept_environments import kept_environments

from autoglm_edge_converter.cache import FolderCache
from autoglm_edge_converter.oldest import Oldest
from autoglm_edge_converter.oldest_runtime import (
    OldRuntime,
    Verdict,
    check_in_oldest,
    difference,
    least_sqnr_db,
    ready_runtime,
)
from autoglm_edge_converter.recipes import Recipe
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.targets import Runtime
from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.tflite.calibration import calibrate
from autoglm_edge_converter.tflite.editing import serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.quantizer import quantize

__all__ = ["kept_environments"]

ONNX_RUNTIME, LITERT, TFLITE = Runtime("onnxruntime", "1.17"), Runtime("litert", "1.0"), Runtime("tflite", "2.14")


def answers(path: Path, feeds: Sequence[Feed]) -> list[list[Array]]:
    runner = open_runner(path)
    return [list(runner.run(feed)) for feed in feeds]


def vectors(count: int = 3) -> list[Feed]:
    numbers = np.random.default_rng(3).normal(size=(count, 1, 8)).astype(np.float32)
    return [{"x": row} for row in numbers]


def pictures(count: int = 3) -> list[Feed]:
    with np.load(DIGITS / "digits32.npz") as digits:
        return [{"x": (image[None, :, :, None] / 255).astype(np.float32)} for image in digits["test"][:count]]


def check(path: Path, runtime: Runtime, feeds: Sequence[Feed], scratch: Path) -> Verdict:
    old = ready_runtime(runtime)
    assert old.problem is None
    return check_in_oldest(path, old, feeds, answers(path, feeds), scratch)


@pytest.mark.slow
def test_a_model_that_it_reads_passes_and_one_with_a_newer_operator_set_is_refused(tmp_path: Path) -> None:
    assert check(linear(tmp_path / "old.onnx", opset=17), ONNX_RUNTIME, vectors(), tmp_path) == Verdict(
        "onnxruntime 1.17", True, None
    )
    newer = check(linear(tmp_path / "newer.onnx", opset=22), ONNX_RUNTIME, vectors(), tmp_path)
    assert newer.ran
    assert newer.problem is not None
    assert "Opset 22 is under development" in newer.problem
    assert "\n" not in newer.problem


@pytest.mark.slow
def test_a_newer_format_version_is_refused_though_its_operators_are_old(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.onnx", opset=17)
    model = onnx.load(path)
    model.ir_version = 10
    onnx.save(model, path)
    verdict = check(path, ONNX_RUNTIME, vectors(), tmp_path)
    assert verdict.problem == (
        "onnxruntime 1.17 (on this machine): Unsupported model IR version: 10, max supported IR version: 9"
    )


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [LITERT, TFLITE], ids=str)
def test_a_tflite_file_passes_and_one_with_a_newer_operator_version_is_refused(
    runtime: Runtime, tmp_path: Path
) -> None:
    source = DIGITS / "mbn.tflite"
    old = ready_runtime(runtime)
    expected = answers(source, named(source, pictures()))
    assert check_in_oldest(source, old, named(source, pictures()), expected, tmp_path) == Verdict(
        f"{runtime.name} {runtime.oldest}", True, None
    )
    changed = unpack(source.read_bytes())
    code = next(entry for entry in changed.operatorCodes if entry.builtinCode == 9)
    code.version = 99
    newer = tmp_path / "newer.tflite"
    newer.write_bytes(serialize(changed))
    verdict = check_in_oldest(newer, old, named(source, pictures()), expected, tmp_path)
    assert verdict.problem is not None
    assert "FULLY_CONNECTED" in verdict.problem
    assert "version '99'" in verdict.problem


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [LITERT, TFLITE], ids=str)
def test_a_file_with_8_bit_ports_takes_and_gives_real_numbers_as_here(runtime: Runtime, tmp_path: Path) -> None:
    data = (DIGITS / "mbn.tflite").read_bytes()
    calibrated = calibrate(data, named(DIGITS / "mbn.tflite", pictures(8)), lambda: None)
    recipe = Recipe("min-max", everything=True)
    nodes = [node.name for node in calibrated.prepared.nodes]
    path = tmp_path / "integers.tflite"
    path.write_bytes(quantize(calibrated.prepared, recipe, nodes, calibrated.ranges("min-max", ())))
    (port,) = read_model(path.read_bytes()).inputs
    assert port.dtype == "int8"
    assert check(path, runtime, named(path, pictures()), tmp_path).problem is None


def named(path: Path, feeds: Sequence[Feed]) -> list[Feed]:
    """The file's own name for its one input."""
    (port,) = read_model(path.read_bytes()).inputs
    return [{port.name: feed["x"]} for feed in feeds]


@pytest.mark.slow
def test_other_answers_than_in_the_current_runtime_are_a_finding(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.onnx")
    feeds = vectors()
    other = [[output * 0.5 for output in outputs] for outputs in answers(path, feeds)]
    verdict = check_in_oldest(path, ready_runtime(ONNX_RUNTIME), feeds, other, tmp_path)
    assert verdict.problem is not None
    assert "output 0 is 0.0 dB from that of the current runtime" in verdict.problem


@pytest.mark.slow
def test_a_verdict_is_kept_by_content(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.onnx")
    cache, feeds = FolderCache(tmp_path / "cache"), vectors()
    first = check_in_oldest(path, ready_runtime(ONNX_RUNTIME), feeds, answers(path, feeds), tmp_path, cache)
    request = tmp_path / "oldest.request.json"
    assert json.loads(request.read_text())["runtime"] == "onnxruntime"
    request.unlink()
    expected = answers(path, feeds)
    assert check_in_oldest(path, ready_runtime(ONNX_RUNTIME), feeds, expected, tmp_path, cache) == first
    assert not request.exists()  # nothing was run
    linear(path, weights=0.3)
    check_in_oldest(path, ready_runtime(ONNX_RUNTIME), feeds, answers(path, feeds), tmp_path, cache)
    assert request.exists()


def test_what_cannot_be_run_is_judged_by_the_table_and_says_so(tmp_path: Path) -> None:
    old = ready_runtime(Runtime("onnxruntime", "1.3"))
    assert old == OldRuntime(Runtime("onnxruntime", "1.3"), None, "no packages are locked for onnxruntime 1.3")
    verdict = check_in_oldest(tmp_path / "model.onnx", old, [], [], tmp_path, by_table="operator set 17 is too new")
    assert verdict == Verdict(
        "onnxruntime 1.3",
        False,
        "operator set 17 is too new",
        "not run in onnxruntime 1.3, judged by its table of operators: no packages are locked for onnxruntime 1.3",
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.01]), None),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), "output 0 is 7.0 dB from that of the current runtime"),
        (np.zeros(4), np.full(4, 1e-7), None),
        (np.zeros(4), np.array([0, 0, 0, np.nan]), "output 0 is NaN, infinite or of another shape"),
        (np.zeros(4), np.zeros(5), "output 0 is NaN, infinite or of another shape"),
        (np.arange(8), np.arange(8), None),
        (np.arange(8), np.arange(8) + 1, "output 0 has 0.0% of its elements as the current runtime"),
        # Quantized: one step away in one of many is noise; all of the variation gone is not, though most are near.
        (np.arange(-50, 50, dtype=np.int8), np.arange(-49, 51, dtype=np.int8), None),
        (
            np.array([-128] * 7 + [-120], np.int8),
            np.array([-128] * 8, np.int8),
            "output 0 is -0.6 dB from that of the current runtime",
        ),
    ],
)
def test_difference_is_told_beyond_the_rounding_of_kernels(ours: Array, theirs: Array, expected: str | None) -> None:
    assert difference([[ours]], [[theirs]]) == expected


def test_a_file_is_run_in_the_runtimes_of_its_own_format_only() -> None:
    here = Path("python")
    runtimes = (("onnx", OldRuntime(ONNX_RUNTIME, None, "no network")), ("tflite", OldRuntime(LITERT, here)))
    assert Oldest(runtimes).ran(Path("model.tflite")) == ("litert 1.0",)
    assert Oldest(runtimes).ran(Path("model.onnx")) == ()


@pytest.mark.parametrize(
    ("noise_db", "least_db"),
    [
        (None, 20.0),  # the same answers as the original
        (40.0, 20.0),
        (24.5, 20.0),
        (19.0, 15.0),  # two roundings so far from the original are 3 dB further from one another
        (2.0, 8.0),  # what could not be told from damage is no excuse
    ],
)
def test_a_noisier_variant_may_differ_more(noise_db: float | None, least_db: float) -> None:
    assert least_sqnr_db(noise_db) == least_db


def test_roundings_of_two_runtimes_are_told_from_damage() -> None:
    random = np.random.default_rng(0)
    exact = random.standard_normal(4000).astype(np.float32)
    ours, theirs = (exact + random.standard_normal(4000).astype(np.float32) * np.float32(0.126) for _ in range(2))
    assert difference([[ours]], [[theirs]]) is not None  # 15 dB from one another
    assert difference([[ours]], [[theirs]], least_sqnr_db(18.0)) is None
    assert difference([[ours]], [[np.roll(theirs, 1)]], least_sqnr_db(18.0)) is not None
