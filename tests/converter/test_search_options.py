"""Real conversions that differ in one option: workers, cache, time, size, targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS, linear, linear_samples, write_digits

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.cache import FolderCache
from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.data.reading import read_data
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.float_graphs import FloatGraph
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.loading import Loading, load_original
from autoglm_edge_converter.operators import VARIABLE
from autoglm_edge_converter.pipeline import plan_conversion
from autoglm_edge_converter.plan import TFLITE_ENDS
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.recipes import HALF, OPTIMISED, WEIGHTS, Candidate, Recipe
from autoglm_edge_converter.searching import NO_CHANGE
from autoglm_edge_converter.trying import identity
from autoglm_edge_converter.workbench import open_workbench
from autoglm_edge_protocol import bundle

RECIPES = (Recipe("min-max"), Recipe("least-error"), Recipe(family=WEIGHTS), Recipe(family=HALF))


def attempt(folder: Path, workers: int, cache: Path) -> tuple[list[object], int]:
    """Score the recipes on `mbn`, and rank its nodes."""
    folder.mkdir()
    source = load_original(str(DIGITS / "mbn.onnx"), Loading(), folder, Silent())
    data = read_data(write_digits(folder / "s.npz", 24), source.inputs, 0)
    for number, node in enumerate(source.proto.graph.node):
        node.name = f"n{number}"
    with Laboratory(data.feeds, folder, workers) as laboratory:
        bench = open_workbench(source, data, laboratory, folder)
        graph = FloatGraph(OPTIMISED, source.proto)
        candidates = Candidates([graph], bench, Silent(), Deadline(1000), FolderCache(cache))
        found: list[object] = list(candidates.attempt([Candidate(recipe) for recipe in RECIPES]))
        found.append(candidates.rank(Candidate(RECIPES[0])))
        return found, candidates.reused


def test_neither_the_number_of_workers_nor_the_cache_changes_what_is_found(tmp_path: Path) -> None:
    alone, reused_first = attempt(tmp_path / "a", 1, tmp_path / "cache")
    together, reused = attempt(tmp_path / "b", 2, tmp_path / "other")
    assert alone == together
    assert (reused_first, reused) == (0, 0)
    again, reused_now = attempt(tmp_path / "c", 1, tmp_path / "cache")
    assert again == alone
    assert reused_now == len(list((tmp_path / "cache").iterdir())) > len(RECIPES)
    for entry in (tmp_path / "cache").iterdir():
        entry.write_bytes(b"damaged")
    repaired, reused_damaged = attempt(tmp_path / "d", 2, tmp_path / "cache")
    assert repaired == alone
    assert reused_damaged == 0


def test_other_custom_operators_are_another_question_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same path may hold another build of the library, which computes something else."""
    source = load_original(str(DIGITS / "mbn.onnx"), Loading(), tmp_path, Silent())
    data = read_data(write_digits(tmp_path / "s.npz", 24), source.inputs, 0)
    library = tmp_path / "ops.so"
    with Laboratory(data.feeds, tmp_path) as laboratory:
        bench = open_workbench(source, data, laboratory, tmp_path)
        known = {identity(bench)}
        monkeypatch.setenv(VARIABLE, str(library))
        for build in (b"a build", b"another build"):
            library.write_bytes(build)
            assert identity(bench) == identity(bench) not in known
            known.add(identity(bench))


def test_the_smallest_is_shipped_when_size_is_limited(tmp_path: Path, digits: Path) -> None:
    options = Options(max_size_bytes=450_000, max_drop=0.1)
    manifest = convert(DIGITS / "res.onnx", digits, tmp_path, options).manifest
    small = [variant for variant in manifest.variants if variant.precision != "fp32"]
    assert small
    assert all(manifest.file(variant.model).size_bytes <= 450_000 for variant in small)


def test_what_no_candidate_can_keep_is_said(tmp_path: Path, digits: Path) -> None:
    result = convert(DIGITS / "res.onnx", digits, tmp_path, Options(max_size_bytes=1000, max_drop=0.1))
    assert not result.complete
    assert any("--max-size" in refusal.reason for refusal in result.findings.refusals)
    assert [variant.id for variant in result.manifest.variants] == ["fp32"]


def test_16_bits_on_request(tmp_path: Path) -> None:
    samples = linear_samples(tmp_path / "s.npz")
    options = Options(precisions=("fp32", "fp16"))
    result = convert(linear(tmp_path / "m.onnx"), samples, tmp_path / "out", options)
    # The weights are fewer than are worth a node of their own: the file is the float one, and not a variant for itself.
    assert result.manifest.variants[0].id == "fp32"
    digits = write_digits(tmp_path / "d.npz", 60)
    manifest = convert(DIGITS / "res.onnx", digits, tmp_path / "out", options).manifest
    fp32, fp16 = manifest.variants
    assert (fp16.id, fp16.precision) == ("fp16", "fp16")
    assert manifest.file(fp16.model).size_bytes < 0.55 * manifest.file(fp32.model).size_bytes
    bundle.verify(tmp_path / "out" / "res-1.0.0")


def test_halves_that_save_nothing_are_not_shipped(tmp_path: Path) -> None:
    """All weights of this model are too small to be worth a cast."""
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.random.default_rng(0).normal(size=(60, 1, 8)).astype(np.float32))
    result = convert(linear(tmp_path / "m.onnx"), samples, tmp_path, Options(precisions=("fp32", "fp16")))
    assert [variant.id for variant in result.manifest.variants] == ["fp32"]
    (refusal,) = result.findings.refusals
    assert refusal.precision == "fp16"
    assert refusal.reason.startswith("it saves next to nothing: ")


def test_targets_decide_signs_and_are_stated(tmp_path: Path, digits: Path) -> None:
    options = Options(targets=("rpi4",), run_oldest=False, max_drop=0.1, precisions=("int8",))
    result = convert(DIGITS / "res.onnx", digits, tmp_path, options)
    assert result.manifest.provenance.plan["activations"] == "signed"
    assert all(any("rpi4" in note for note in variant.notes) for variant in result.manifest.variants)


def test_the_plan_says_what_would_be_done_and_writes_nothing(tmp_path: Path, digits: Path) -> None:
    plan = plan_conversion(DIGITS / "res.onnx", digits, Options(targets=("rpi5", "x86-64"), max_size_bytes=10**6))
    text = str(plan)
    for word in ("rpi5, x86-64", "unsigned", "min-max, per channel", "18 calibrate", "1,000,000 bytes", "120 s"):
        assert word in text
    assert plan.most_candidates > len(plan.recipes) > 9
    assert sorted(tmp_path.iterdir()) == [digits]


def test_the_plan_of_a_tflite_file_is_of_tflite(tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.random.default_rng(0).random((20, 32, 32, 1), np.float32))
    plan = plan_conversion(DIGITS / "mbn.tflite", samples, Options(targets=("armv7",)))
    assert plan.formats == ("tflite",)
    assert plan.most_candidates > len(plan.tflite_recipes) > 5
    assert "tflite     min-max, per channel; percentile, per channel" in str(plan)
    ends = len(plan.tflite_ends) * len(TFLITE_ENDS)
    assert ends > 0
    assert f"search     {len(plan.tflite_recipes) + ends} whole candidates" in str(plan)
    assert "least-error, per channel with float ends" in str(plan)
    assert "operator set" not in str(plan)
    assert "quantize   nothing" not in str(plan)


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        ("net.onnx", {"formats": ("pb",)}, "--format 'pb' is not known: choose onnx or tflite"),
        ("net.onnx", {"targets": ("armv7",)}, "add --format tflite"),
        ("net.onnx", {"int8_io": True}, "--int8-io is for TFLite variants: add --format tflite"),
        ("net.onnx", {"finetune": "t.py:f", "prune": "0.4"}, "this one is of onnx"),
        ("net.tflite", {"finetune": "t.py:f", "prune": "0.4"}, "this one is of tflite"),
        ("net.tflite", {"prune": "auto"}, "--prune takes channels out of the ONNX graph"),
        ("net.tflite", {"sparsify": 0.5}, "--sparsify makes an ONNX variant"),
        ("net.keras", {"loading": (("state_dict", "w.pt"),)}, "--state-dict .* this model is of keras"),
        ("net.onnx", {"loading": (("signature", "serve"),)}, "--signature .* this model is of onnx"),
        ("net.onnx", {"loading": (("example_inputs", "c.npz"),)}, "--example-inputs .* this model is of onnx"),
    ],
)
def test_options_that_mean_nothing_for_the_model_are_refused_before_it_is_loaded(
    model: str, change: dict[str, object], words: str, tmp_path: Path
) -> None:
    options = replace(Options(), **change)  # type: ignore[arg-type]
    with pytest.raises(BadOption, match=words):
        convert(model, tmp_path, tmp_path / "out", options)
    with pytest.raises(BadOption, match=words):
        plan_conversion(model, tmp_path, options)


def test_a_short_time_budget_is_kept_and_said(tmp_path: Path, digits: Path) -> None:
    result = convert(DIGITS / "mbn.onnx", digits, tmp_path, Options(max_drop=0.0, budget_s=0.01))
    assert result.findings.search is not None
    assert result.findings.search.out_of_time
    assert not result.findings.search.sensitivities


@pytest.mark.parametrize(
    "change",
    [{"budget_s": 0.0}, {"workers": 0}, {"max_size_bytes": 0}, {"max_latency_ms": -1.0}, {"targets": ("toaster",)}],
)
def test_options_that_make_no_sense_are_refused_first(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(BadOption):
        convert(DIGITS / "no.onnx", tmp_path, tmp_path, replace(Options(), **change))  # type: ignore[arg-type]


def test_recipes_that_change_nothing_are_listed_with_the_reason(tmp_path: Path) -> None:
    """One product has no neighbours, so equalising its channels may not be worth a multiplication."""
    samples = linear_samples(tmp_path / "s.npz", 60)
    found = convert(linear(tmp_path / "m.onnx"), samples, tmp_path / "out", Options(max_drop=0.2)).findings
    assert found.search is not None
    left_out = [trial for trial in found.search.trials if trial.problem == NO_CHANGE]
    assert left_out
    assert all(trial.candidate.recipe.equalise for trial in left_out)
    assert NO_CHANGE in (tmp_path / "out" / "m-1.0.0" / "report.html").read_text(encoding="utf-8")


def test_other_signs_and_the_least_error_of_a_tensor_are_candidates_too(tmp_path: Path, digits: Path) -> None:
    recipes = plan_conversion(DIGITS / "res.onnx", digits, Options()).recipes
    assert {recipe.signed for recipe in recipes} == {True, False}
    assert any(recipe.ranges == "least-error" and not recipe.per_channel for recipe in recipes)
