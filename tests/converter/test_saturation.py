"""Sums of 8-bit products that saturate on x86 without VNNI: who is concerned, and what stands in for the files."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from tests.converter.graphs import DIGITS, write_digits

from autoglm_edge_converter.build import build
from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.choose import Limits
from autoglm_edge_converter.data.reading import read_data
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.float_graphs import Calibrated, FloatGraph, calibrate
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.loading import Loading, load_original
from autoglm_edge_converter.measure import Form, measure_form
from autoglm_edge_converter.original import FORMATS
from autoglm_edge_converter.passes import PASSES
from autoglm_edge_converter.plan import static_recipes
from autoglm_edge_converter.processor import in_words, own_units, sums_saturate, units_in
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.recipes import DYNAMIC, INT8, OPTIMISED, PAIRED, UINT8, WEIGHTS, Candidate, Recipe
from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.saturation import is_depthwise, output_axis, paired_peaks
from autoglm_edge_converter.selection import consider
from autoglm_edge_converter.targets import TARGETS, Demands, demands_of
from autoglm_edge_converter.twins import Kind, Twins, may_saturate, twins_for
from autoglm_edge_converter.unsigned_weights import unsigned_weights
from autoglm_edge_converter.weights_only import round_to_int8
from autoglm_edge_converter.workbench import Workbench, open_workbench

XEON = "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni\n"
ROME = "processor\t: 0\nmodel name\t: AMD EPYC 7002\nflags\t\t: fpu sse2 avx avx2 sha_ni\n"
CORTEX_A76 = "processor\t: 0\nFeatures\t: fp asimd aes asimddp\n"

IMAGES = np.load(DIGITS / "digits32.npz")["test"][:8]
FEEDS = [{"x": (image[None, None] / 255).astype(np.float32)} for image in IMAGES]

AVX2, VNNI, DOTPROD, NEON = Kind(False, True), Kind(False, False), Kind(False, False), Kind(True, False)


def optimised(name: str) -> onnx.ModelProto:
    model = onnx.load(DIGITS / name)
    for rewrite in PASSES.values():
        model = rewrite(model)
    return model


@pytest.fixture(scope="module")
def mbn() -> Calibrated:
    return calibrate(optimised("mbn.onnx"), FEEDS, lambda: None)


def made(graph: Calibrated, recipe: Recipe) -> onnx.ModelProto:
    return build(graph.proto, recipe, [node.name for node in graph.nodes], graph.observation)


def answers(model: onnx.ModelProto) -> np.ndarray:
    session = open_session(model.SerializeToString())
    return np.concatenate([session.run(None, feed)[0] for feed in FEEDS]).astype(np.float64)


def noise_db(expected: np.ndarray, found: np.ndarray) -> float:
    error = np.square(found - expected).sum()
    return float("inf") if error == 0 else float(10 * np.log10(np.square(expected).sum() / error))


@pytest.mark.parametrize(
    ("cpuinfo", "architecture", "units", "saturates", "words"),
    [
        (XEON, "x86_64", ("avx2", "avx512", "vnni"), False, "AVX2, AVX-512, VNNI"),
        (ROME, "x86_64", ("avx2",), True, "AVX2, no VNNI"),
        (CORTEX_A76, "aarch64", ("neon", "dotprod"), False, "NEON, dot products"),
        ("", "x86_64", (), True, ""),
    ],
)
def test_the_flags_of_a_processor_tell_whether_sums_saturate(
    cpuinfo: str, architecture: str, units: tuple[str, ...], saturates: bool, words: str
) -> None:
    assert units_in(cpuinfo) == units
    assert sums_saturate(architecture, units) == saturates
    assert in_words(architecture, units) == words


def test_a_target_that_may_lack_vnni_gets_nothing_that_saturates() -> None:
    for names in (["x86-64"], ["rpi5", "x86-64"]):
        recipes = [Candidate(recipe) for recipe in static_recipes(demands_of(names))]
        assert len(recipes) > 10
        assert not any(map(may_saturate, recipes))
        assert {entry.recipe.weights for entry in recipes} == {UINT8, PAIRED}
        assert sum(entry.recipe.weights == UINT8 for entry in recipes) == 2
    for names in (["rpi5"], ["rpi4"], ["x86-64-vnni"]):
        assert {recipe.weights for recipe in static_recipes(demands_of(names))} == {INT8}


def test_signed_activations_never_meet_unsigned_weights() -> None:
    """No kernel multiplies them, so the products would go back to float."""
    for signed in (False, True):
        for saturates in (False, True):
            demands = Demands((), 20, signed, None, saturates)
            assert all(not (recipe.signed and recipe.weights == UINT8) for recipe in static_recipes(demands))


@pytest.mark.parametrize(
    ("here", "there", "recipe", "timed", "judged"),
    [
        (AVX2, DOTPROD, Recipe(), None, Recipe(weights=UINT8)),
        (AVX2, NEON, Recipe(signed=True), Recipe(), Recipe(weights=UINT8)),
        (AVX2, DOTPROD, Recipe(family=DYNAMIC), None, Recipe(family=DYNAMIC, weights=UINT8)),
        (AVX2, DOTPROD, Recipe(family=WEIGHTS), None, None),
        (AVX2, AVX2, Recipe(weights=UINT8), None, None),
        (AVX2, AVX2, Recipe(signed=True, weights=PAIRED), None, None),
        (VNNI, NEON, Recipe(signed=True), Recipe(), None),
        (VNNI, VNNI, Recipe(signed=True), None, None),
        (NEON, AVX2, Recipe(weights=UINT8), Recipe(signed=True), None),
    ],
)
def test_a_file_that_saturates_here_alone_has_a_twin_that_answers_for_it(
    here: Kind, there: Kind, recipe: Recipe, timed: Recipe | None, judged: Recipe | None
) -> None:
    twins = Twins(here, there)
    assert twins.timed_as(Candidate(recipe)) == (timed and Candidate(timed))
    assert twins.judged_as(Candidate(recipe)) == (judged and Candidate(judged))
    assert twins.judged_as(Candidate(recipe, format="tflite")) is None
    assert twins.timed_as(Candidate(recipe, format="tflite")) is None


@pytest.mark.parametrize(
    ("own", "targets", "machines"),
    [
        (("avx2",), [], ()),
        (("avx2",), ["x86-64"], ()),
        (("avx2",), ["rpi4", "x86-64"], ("aarch64",)),
        (("avx2",), ["rpi5", "armv7", "x86-64-vnni"], ("aarch64", "armv7l", "x86_64")),
        (("avx2", "vnni"), ["rpi5"], ()),
    ],
)
def test_times_taken_here_tell_nothing_of_processors_that_have_more(
    own: tuple[str, ...], targets: list[str], machines: tuple[str, ...]
) -> None:
    twins = twins_for(demands_of(targets, FORMATS), replace(TARGETS["x86-64"], instructions=own))
    assert twins.unknown_on(Candidate(Recipe(), format="tflite")) == machines
    others = [Candidate(Recipe()), *(Candidate(Recipe(family=name), format="tflite") for name in (DYNAMIC, WEIGHTS))]
    assert [twins.unknown_on(candidate) for candidate in others] == [()] * 3


def test_a_twin_computes_what_its_file_does(mbn: Calibrated) -> None:
    """onnx's own evaluator adds in 32 bits on every machine. Zero points of signed ones may round the other way."""
    file, twin, signed = (made(mbn, recipe) for recipe in (Recipe(), Recipe(weights=UINT8), Recipe(signed=True)))
    expected, found, other = (
        np.concatenate([next(iter(ReferenceEvaluator(model).run(None, feed))) for feed in FEEDS[:3]])
        for model in (file, twin, signed)
    )
    np.testing.assert_array_equal(found, expected)
    assert noise_db(expected, other) > 40
    assert len(file.SerializeToString()) == pytest.approx(len(twin.SerializeToString()), rel=0.02)


@pytest.mark.parametrize(
    "recipe", [Recipe(weights=UINT8), Recipe(weights=PAIRED), Recipe(weights=UINT8, per_channel=False)]
)
def test_what_cannot_saturate_answers_well_on_every_machine(mbn: Calibrated, recipe: Recipe) -> None:
    """Signed 8-bit weights give 7 to 9 dB without VNNI; room for pairs costs up to 6 dB, one here."""
    model = made(mbn, recipe)
    onnx.checker.check_model(model)
    assert noise_db(answers(mbn.proto), answers(model)) > 29


def test_the_runtime_computes_products_with_unsigned_weights_on_8_bits(mbn: Calibrated, tmp_path: Path) -> None:
    """It writes the graph that it runs: no convolution may be left that reads dequantized weights."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    model = made(mbn, Recipe(weights=UINT8))
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    products = sum(node.operator == "Conv" for node in mbn.nodes)
    assert operators.count("QLinearConv") == products
    assert "Conv" not in operators


def in_sixteen_bits(model: onnx.ModelProto) -> int:
    """Return the largest sum of two products that a kernel without VNNI may get, activations being 255 at most."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    worst = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm") and node.input[1] in made:
            weights = constants[made[node.input[1]].input[0]].astype(np.int32)
            if not is_depthwise(node, weights.shape):
                rows = [weights.reshape(len(weights), -1), np.moveaxis(weights, 1, -1).reshape(len(weights), -1)]
                if node.op_type == "Gemm":
                    rows = [weights if output_axis(node, 2) == 0 else weights.T]
                worst = max(worst, *(int(np.abs(row[:, :-1] + row[:, 1:]).max()) for row in rows))
    return worst * 255


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales_with_room_for_pairs_never_reach_the_end_of_16_bits(mbn: Calibrated, per_channel: bool) -> None:
    assert in_sixteen_bits(made(mbn, Recipe(per_channel=per_channel))) > 32767
    assert 30000 < in_sixteen_bits(made(mbn, Recipe(weights=PAIRED, per_channel=per_channel))) <= 32767


def test_the_runtime_sums_pairs_with_room_exactly(mbn: Calibrated) -> None:
    """The same numbers as unsigned weights go through kernels that widen first: not a bit may differ."""
    file = made(mbn, Recipe(weights=PAIRED))
    expected = answers(file)
    np.testing.assert_array_equal(answers(unsigned_weights(file)), expected)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(6, 5, 3, 3), (4, 1, 3, 3), (3, 2, 1, 1), (8, 7)]))
def test_any_weights_scaled_so_keep_the_bound(seed: int, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(seed).standard_t(2, shape).astype(np.float32)
    node = onnx.helper.make_node("Conv" if len(shape) == 4 else "MatMul", ["x", "w"], ["y"])
    axis = output_axis(node, weight.ndim)
    values, _ = round_to_int8(weight, axis, paired_peaks(node, weight))
    rows = np.moveaxis(values.astype(np.int32), axis, 0)
    orders = [rows.reshape(len(rows), -1), np.moveaxis(rows, 1, -1).reshape(len(rows), -1)]
    assert max(int(np.abs(order[:, :-1] + order[:, 1:]).max(initial=0)) for order in orders) * 255 <= 32767


def test_dynamic_products_with_unsigned_weights_are_the_same_numbers() -> None:
    res = calibrate(optimised("res.onnx"), FEEDS, lambda: None)
    file, twin = (made(res, Recipe(family=DYNAMIC, weights=weights)) for weights in (INT8, UINT8))
    kinds = [{tensor.name: tensor.data_type for tensor in model.graph.initializer} for model in (file, twin)]
    for known, model, kind in zip(kinds, (file, twin), (onnx.TensorProto.INT8, onnx.TensorProto.UINT8), strict=True):
        integers = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
        assert integers
        assert {known[node.input[at]] for node in integers for at in (1, 3)} == {kind}
    if not sums_saturate(platform.machine(), own_units()):
        assert noise_db(answers(file), answers(twin)) > 100
    paired = made(res, Recipe(family=DYNAMIC, weights=PAIRED))
    assert min(noise_db(answers(res.proto), answers(model)) for model in (twin, paired)) > 35


class Elsewhere(Candidates):
    """Candidates for boards that do not saturate, made on a machine that does, whatever this one is."""

    def __init__(self, graphs: list[FloatGraph], bench: Workbench) -> None:
        super().__init__(graphs, bench, Silent(), Deadline(1000), twins=Twins(AVX2, DOTPROD))


def test_what_is_for_arm_is_scored_by_its_twin_and_shipped_as_it_is(tmp_path: Path) -> None:
    source = load_original(str(DIGITS / "mbn.onnx"), Loading(), tmp_path, Silent())
    data = read_data(write_digits(tmp_path / "s.npz", 40), source.inputs, 0)
    with Laboratory(data.feeds, tmp_path) as laboratory:
        bench = open_workbench(source, data, laboratory, tmp_path)
        candidates = Elsewhere([FloatGraph(OPTIMISED, optimised("mbn.onnx"))], bench)
        (trial,) = candidates.attempt([Candidate(Recipe())])
        assert trial.score is not None
        # 7 to 9 dB where the sums of the file itself saturate.
        assert (trial.score.sqnr_db or 99) > 28
        floats = [Form("fp32", "fp32", bench.original)]
        selection = consider([trial], floats, candidates, bench, Limits(0.1), Silent())
        (entry,) = selection.considered
        kinds = [
            {tensor.data_type for tensor in onnx.load(path).graph.initializer}
            for path in (selection.paths[entry.form], selection.stand_ins[entry.form])
        ]
        assert onnx.TensorProto.INT8 in kinds[0]
        assert onnx.TensorProto.INT8 not in kinds[1]
        form = Form("int8", "int8", selection.paths[entry.form], trial.candidate, 0.0, selection.stand_ins[entry.form])
        measured = measure_form(form, bench, {}, bench.parts.acceptance)
        assert (measured.quality.sqnr_db or 99) > 28
        assert measured.size_bytes == selection.paths[entry.form].stat().st_size
