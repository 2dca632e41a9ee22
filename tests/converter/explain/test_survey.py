"""What is told of variants that a conversion wrote, in both formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS

from autoglm_edge_converter import ConversionResult, Options, convert
from autoglm_edge_converter.explain.explanation import ADDED, BY_NAME, EIGHT_BITS, FUSED, KEPT, Explanation


def becomes(explanation: Explanation, operator: str) -> set[str]:
    return {fate.became for fate in explanation.fates if fate.operator == operator}


def by_variant(result: ConversionResult) -> dict[str, Explanation]:
    return {entry.variant: entry for entry in result.findings.explanations}


def test_every_shipped_onnx_variant_is_explained(converted: ConversionResult) -> None:
    found = by_variant(converted)
    assert set(found) == {variant.id for variant in converted.manifest.variants}
    fp32, int8 = found["fp32"], found["int8"]
    assert fp32.how == int8.how == BY_NAME
    assert becomes(fp32, "Conv") == {KEPT}
    assert becomes(int8, "Conv") == {EIGHT_BITS}
    assert FUSED in becomes(int8, "Relu")
    assert becomes(int8, "QuantizeLinear") == {ADDED}


def test_each_operator_of_the_original_is_told_of_once(converted: ConversionResult) -> None:
    for entry in converted.findings.explanations:
        assert sum(fate.became != ADDED for fate in entry.fates) == sum(count for _, count in entry.before)


def test_the_file_names_who_reads_it(converted: ConversionResult) -> None:
    needs = {need.operator: need for need in by_variant(converted)["int8"].needs}
    assert needs["Conv"].readers == (("onnxruntime", "1.6"),)
    assert "onnxruntime" in by_variant(converted)["int8"].file_needs


def test_the_report_tells_it_too(converted: ConversionResult) -> None:
    page = (converted.directory / "report.html").read_text()
    assert "What became of each operator" in page
    document = json.loads((converted.directory / "report.json").read_text())
    assert [entry["variant"] for entry in document["explanations"]] == list(by_variant(converted))


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    folder = tmp_path_factory.mktemp("tflite")
    samples = write_nhwc(folder / "samples.npz", 90)
    options = Options(max_drop=0.05, shapes=(("x", (1, 32, 32, 1)),), budget_s=10)
    return convert(DIGITS / "mbn.tflite", samples, folder / "bundles", options)


def write_nhwc(path: Path, count: int) -> Path:
    with np.load(DIGITS / "digits32.npz") as digits:
        np.savez(path, x=(digits["test"][:count, ..., None] / 255).astype(np.float32))
    return path


def test_tflite_operators_are_followed_by_name(tflite: ConversionResult) -> None:
    found = by_variant(tflite)
    int8 = found["tflite-int8"]
    assert int8.how == BY_NAME
    assert becomes(int8, "DEPTHWISE_CONV_2D") == {EIGHT_BITS}
    assert sum(fate.became != ADDED for fate in int8.fates) == sum(count for _, count in int8.before)
    needs = {need.operator: need for need in int8.needs}
    assert needs["CONV_2D"].version == 3
    assert dict(needs["CONV_2D"].readers) == {"litert": "1.0", "tflite": "2.14"}


def test_the_report_looks_into_the_layers_of_a_tflite_file(tflite: ConversionResult) -> None:
    found = json.loads((tflite.directory / "report.json").read_text())
    (layers,) = found["layers"]
    assert layers["format"] == "tflite"
    assert len(layers["sizes"]) == len(layers["noise"]["layers"]) == 21  # 20 convolutions and the product at the end
    assert {entry["title"] for entry in layers["worst"]["histograms"]} == {"weights", "activations"}
    # 8-bit weights and 32-bit biases and scales kept elsewhere: under a third of the float bytes in all.
    before, after = (sum(row[key] for row in layers["sizes"]) for key in ("before_bytes", "after_bytes"))
    assert after < before / 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_prints_it(tmp_path: Path) -> None:
    samples = write_nhwc(tmp_path / "samples.npz", 60)
    given = [str(DIGITS / "mbn.tflite"), "--calibration", str(samples), "--output", str(tmp_path / "bundles")]
    more = ["--shape", "x=1,32,32,1", "--budget-s", "5", "--no-cache", "--max-drop", "0.1", "--explain"]
    program = "from autoglm_edge.app import main; main()"
    command = [sys.executable, "-c", program, "convert", *given, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "oldest runtime" in done.stdout
    assert "DEPTHWISE_CONV_2D" in done.stdout
