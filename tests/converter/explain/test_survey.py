"""What is told of variants that a conversion wrote, in both formats."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS, int8_in

from autoglm_edge_converter import ConversionResult
from autoglm_edge_converter.data.reading import read_data
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.explain.explanation import ADDED, BY_NAME, EIGHT_BITS, FLOAT, FUSED, KEPT, Explanation
from autoglm_edge_converter.explain.survey import Written, survey
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.loading import Loading, load_original
from autoglm_edge_converter.original import TFLITE
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.recipes import OPTIMISED, Candidate, Recipe
from autoglm_edge_converter.report.evidence import Pair, collect
from autoglm_edge_converter.report.opened_tflite import OpenedTflite
from autoglm_edge_converter.tflite.candidates import FloatFile, TfliteCandidates
from autoglm_edge_converter.tflite.nodes import prepare
from autoglm_edge_converter.workbench import Workbench, open_workbench


def becomes(explanation: Explanation, operator: str) -> set[str]:
    return {fate.became for fate in explanation.fates if fate.operator == operator}


def by_variant(result: ConversionResult) -> dict[str, Explanation]:
    return {entry.variant: entry for entry in result.findings.explanations}


def test_every_shipped_onnx_variant_is_explained(converted: ConversionResult) -> None:
    found = by_variant(converted)
    assert set(found) == {variant.id for variant in converted.manifest.variants}
    fp32, int8 = found["fp32"], found[int8_in(found)]
    assert fp32.how == int8.how == BY_NAME
    assert becomes(fp32, "Conv") == {KEPT}
    assert EIGHT_BITS in becomes(int8, "Conv") <= {EIGHT_BITS, FLOAT}
    assert FUSED in becomes(int8, "Relu")
    assert becomes(int8, "QuantizeLinear") == {ADDED}


def test_each_operator_of_the_original_is_told_of_once(converted: ConversionResult) -> None:
    for entry in converted.findings.explanations:
        assert sum(fate.became != ADDED for fate in entry.fates) == sum(count for _, count in entry.before)


def test_the_file_names_who_reads_it(converted: ConversionResult) -> None:
    int8 = by_variant(converted)[int8_in(by_variant(converted))]
    needs = {need.operator: need for need in int8.needs}
    assert needs["Conv"].readers == (("onnxruntime", "1.6"),)
    assert "onnxruntime" in int8.file_needs


def test_the_report_tells_it_too(converted: ConversionResult) -> None:
    page = (converted.directory / "report.html").read_text()
    assert "What became of each operator" in page
    document = json.loads((converted.directory / "report.json").read_text())
    assert [entry["variant"] for entry in document["explanations"]] == list(by_variant(converted))


@dataclass(frozen=True)
class Quantized:
    """A TFLite file on 8 bits. Where its kernels are slower than float's (x86 without VNNI), no conversion ships it."""

    bench: Workbench
    candidate: Candidate
    path: Path


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quantized]:
    folder = tmp_path_factory.mktemp("tflite")
    source = load_original(str(DIGITS / "mbn.tflite"), Loading(shapes={"x": (1, 32, 32, 1)}), folder, Silent())
    data = read_data(write_nhwc(folder / "samples.npz", 40), source.inputs, 0)
    with Laboratory(data.feeds, folder) as laboratory:
        bench = open_workbench(source, data, laboratory, folder)
        file = FloatFile(OPTIMISED, bench.original.read_bytes())
        candidate = Candidate(Recipe("min-max"), format=TFLITE)
        path = TfliteCandidates([file], bench, Silent(), Deadline(1000)).write(candidate, "int8")
        yield Quantized(bench, candidate, path)


def write_nhwc(path: Path, count: int) -> Path:
    with np.load(DIGITS / "digits32.npz") as digits:
        np.savez(path, x=(digits["test"][:count, ..., None] / 255).astype(np.float32))
    return path


def test_tflite_operators_are_followed_by_name(tflite: Quantized) -> None:
    written = Written("tflite-int8", TFLITE, tflite.path, tflite.candidate)
    (int8,) = survey(tflite.bench.source, (), None, [written])
    assert int8.how == BY_NAME
    assert becomes(int8, "DEPTHWISE_CONV_2D") == {EIGHT_BITS}
    assert sum(fate.became != ADDED for fate in int8.fates) == sum(count for _, count in int8.before)
    needs = {need.operator: need for need in int8.needs}
    assert needs["CONV_2D"].version == 3
    assert dict(needs["CONV_2D"].readers) == {"litert": "1.0", "tflite": "2.14"}


def test_the_report_looks_into_the_layers_of_a_tflite_file(tflite: Quantized) -> None:
    bench = tflite.bench
    names = prepare(bench.original.read_bytes()).names
    pair = Pair(TFLITE, OpenedTflite(bench, bench.original, names), OpenedTflite(bench, tflite.path, names))
    (layers,) = collect(bench, [pair], {}).layers
    assert layers.format == "tflite"
    assert len(layers.sizes) == len(layers.noise.layers) == 21  # 20 convolutions and the product at the end
    assert layers.worst is not None
    assert {entry.title for entry in layers.worst.histograms} == {"weights", "activations"}
    # 8-bit weights and 32-bit biases and scales kept elsewhere: under a third of the float bytes in all.
    before, after = (sum(getattr(row, key) for row in layers.sizes) for key in ("before_bytes", "after_bytes"))
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
    # 3: on a processor that is not made for them no variant on 8 bits is faster than float.
    assert done.returncode in (0, 3), done.stderr
    assert "oldest runtime" in done.stdout
    assert "DEPTHWISE_CONV_2D" in done.stdout
