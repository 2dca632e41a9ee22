"""Quantizing TFLite files: what is quantized, what stays, and what the file says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.converter.graphs import DIGITS
from tests.converter.tflite.files import MBN, Spec, Step, make, remembering

from autoglm_edge_converter.recipes import DYNAMIC, FLOAT, HALF, WEIGHTS, Recipe
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.tflite.calibration import Calibrated, calibrate
from autoglm_edge_converter.tflite.editing import constant, serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import TfliteModel, read_model
from autoglm_edge_converter.tflite.nodes import ends, prepare
from autoglm_edge_converter.tflite.operators import unreadable
from autoglm_edge_converter.tflite.quantizer import quantize
from autoglm_edge_converter.tflite.schema import tables

Quantize = Callable[..., bytes]


def _images(part: str, count: int) -> Array:
    with np.load(DIGITS / "digits32.npz") as digits:
        found: Array = digits[part][:count, :, :, None].astype(np.float32) / 255
    return found


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    return calibrate(MBN.read_bytes(), [{"x": image[None]} for image in _images("calibration", 64)], lambda: None)


@pytest.fixture
def make_file(calibrated: Calibrated) -> Quantize:
    names = [node.name for node in calibrated.prepared.nodes]

    def build(recipe: Recipe, chosen: list[str] | None = None) -> bytes:
        nodes = names if chosen is None else chosen
        ranges = calibrated.ranges(recipe.ranges)
        return quantize(calibrated.prepared, recipe, nodes, ranges)

    return build


def _noise_db(folder: Path, data: bytes) -> float:
    path = folder / "quantized.tflite"
    path.write_bytes(data)
    images = _images("test", 100)
    (found,), (expected,) = open_runner(path).run({"x": images}), open_runner(MBN).run({"x": images})
    return float(10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum()))


# Levels of the digits network as measured, less a decibel or two for other processors' rounding.
@pytest.mark.parametrize(
    ("recipe", "least_db", "most_bytes"),
    [
        (Recipe("min-max"), 32.5, 192_000),
        (Recipe("percentile"), 32, 192_000),
        (Recipe("least-error"), 32.5, 192_000),
        (Recipe("min-max", per_channel=False), 30, 163_000),
        (Recipe("min-max", followers=False), 32.5, 194_000),
        (Recipe(family=DYNAMIC), 37, 180_000),
        (Recipe(family=DYNAMIC, per_channel=False), 37, 180_000),
        (Recipe(family=WEIGHTS), 39, 182_000),
        (Recipe(family=HALF), 66, 303_000),
        (Recipe(family=FLOAT), 100, 588_000),
    ],
    ids=str,
)
def test_each_recipe_keeps_the_answers_and_saves_bytes(
    tmp_path: Path, make_file: Quantize, recipe: Recipe, least_db: float, most_bytes: int
) -> None:
    data = make_file(recipe)
    assert len(data) <= most_bytes
    with np.errstate(divide="ignore"):
        assert _noise_db(tmp_path, data) >= least_db
    found, source = read_model(data), read_model(MBN.read_bytes())
    assert (found.inputs, found.outputs) == (source.inputs, source.outputs)
    assert make_file(recipe) == data


def test_nothing_is_left_of_the_converter_s_notes_and_long_names(make_file: Quantize) -> None:
    model = unpack(make_file(Recipe("min-max")))
    assert model.metadata is None
    assert model.description is None
    assert max(len(tensor.name) for tensor in model.subgraphs[0].tensors) < 24


def _kinds_on(model: TfliteModel, dtype: str) -> list[str]:
    graph = model.main
    return [entry.kind for entry in graph.operations if graph.tensors[entry.outputs[0]].dtype == dtype]


def test_nodes_left_out_stay_in_float_and_followers_follow(calibrated: Calibrated, make_file: Quantize) -> None:
    first, *others = [node.name for node in calibrated.prepared.nodes]
    alone = read_model(make_file(Recipe("min-max"), [first]))
    assert _kinds_on(alone, "int8") == ["QUANTIZE", "CONV_2D"]
    mixed = read_model(make_file(Recipe("min-max"), others))
    assert [kind for kind in _kinds_on(mixed, "float32") if kind != "DEQUANTIZE"] == ["CONV_2D"]
    assert {"ADD", "PAD", "MEAN"} <= set(_kinds_on(mixed, "int8"))
    products = read_model(make_file(Recipe("min-max", followers=False)))
    assert {"ADD", "PAD", "MEAN"} <= set(_kinds_on(products, "float32"))


def test_names_that_mean_something_to_a_pattern_are_taken_literally() -> None:
    eye = np.eye(4, dtype=np.float32)
    specs = [Spec("x", (1, 4)), Spec("w", (4, 4), value=eye), Spec("a.*", (1, 4)), Spec("v", (4, 4), value=-eye)]
    specs += [Spec("a(b|.;", (1, 4))]
    options = tables.FullyConnectedOptionsT()
    steps = [Step("FULLY_CONNECTED", (0, 1, -1), (2,), options), Step("FULLY_CONNECTED", (2, 3, -1), (4,), options)]
    data = make(specs, steps, (0,), (4,))
    found = calibrate(data, [{"x": np.ones((1, 4), np.float32)}], lambda: None)
    assert [node.name for node in found.prepared.nodes] == ["a.*", "a(b|.;"]
    only = read_model(quantize(found.prepared, Recipe("min-max"), ["a(b|.;"], found.ranges("min-max")))
    assert _kinds_on(only, "int8") == ["QUANTIZE", "FULLY_CONNECTED"]
    assert [port.name for port in only.outputs] == ["a(b|.;"]


def test_the_ends_of_a_network_are_the_products_that_read_inputs_and_give_outputs(calibrated: Calibrated) -> None:
    names = [node.name for node in calibrated.prepared.nodes]
    assert ends(calibrated.prepared) == ((names[-1],), (names[0], names[-1]))
    specs = [Spec("w", (4, 4), value=np.eye(4, dtype=np.float32)), Spec("x", (1, 4))]
    # In a row, but for two heads that both read the last but one; the sum of the heads is an output too.
    specs += [Spec(name, (1, 4)) for name in ("a", "b", "c", "d", "e", "left", "right", "sum")]
    read = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 6}
    options = tables.FullyConnectedOptionsT()
    steps = [Step("FULLY_CONNECTED", (data, 0, -1), (made,), options) for made, data in read.items()]
    steps += [Step("ADD", (7, 8), (9,), tables.AddOptionsT())]
    assert ends(prepare(make(specs, steps, (1,), (7, 9)))) == (("right", "left"), ("a", "right", "left"))
    assert ends(prepare(make(specs, [*steps[:3], *steps[5:]], (1, 6), (4, 9)))) == ()  # five, of which four are ends


def test_versions_say_what_a_runtime_needs(make_file: Quantize) -> None:
    static = read_model(make_file(Recipe("min-max")))
    assert {(entry.kind, entry.version) for entry in static.operations()} >= {("CONV_2D", 3), ("FULLY_CONNECTED", 4)}
    assert unreadable(static, "tflite", "2.14") == ()
    dynamic = read_model(make_file(Recipe(family=DYNAMIC)))
    (found,) = unreadable(dynamic, "tflite", "2.14")
    assert (found.kind, found.version) == ("FULLY_CONNECTED", 12)
    assert unreadable(read_model(make_file(Recipe(family=DYNAMIC, per_channel=False))), "tflite", "2.14") == ()


def test_depthwise_convolutions_compute_in_float_where_others_find_their_ranges(make_file: Quantize) -> None:
    """With one scale for all channels their kernel gives noise, and with many it takes many times as long as float."""
    for per_channel in (True, False):
        graph = read_model(make_file(Recipe(family=DYNAMIC, per_channel=per_channel))).main
        made_by = {index: entry.kind for entry in graph.operations for index in entry.outputs}
        weights = {entry.kind: entry.inputs[1] for entry in graph.operations if len(entry.inputs) == 3}
        stored = {kind: made_by.get(index, graph.tensors[index].dtype) for kind, index in weights.items()}
        assert stored == {"CONV_2D": "int8", "DEPTHWISE_CONV_2D": "DEQUANTIZE", "FULLY_CONNECTED": "int8"}


def test_weights_are_written_alike_whatever_holds_them(make_file: Quantize) -> None:
    """The quantizer leaves bytes; those the bindings would write one by one, at any place."""
    arrays, held = unpack(make_file(Recipe("min-max"))), unpack(make_file(Recipe("min-max")))
    for buffer in held.buffers:
        buffer.data = None if buffer.data is None else bytearray(buffer.data)
    assert serialize(held) == serialize(arrays)


def test_inputs_and_outputs_can_be_integers(tmp_path: Path, make_file: Quantize) -> None:
    recipe = Recipe("min-max", everything=True)
    data = make_file(recipe)
    found = read_model(data)
    assert [port.dtype for port in (*found.inputs, *found.outputs)] == ["int8", "int8"]
    assert _kinds_on(found, "float32") == []
    assert not {"QUANTIZE", "DEQUANTIZE"} & {entry.kind for entry in found.operations()}
    # Real numbers are rounded to the port's integers at the border; in the twin with real ports, inside.
    assert abs(_noise_db(tmp_path, data) - _noise_db(tmp_path, make_file(Recipe("min-max")))) < 0.1


def test_weights_are_what_they_were_to_within_half_a_step(make_file: Quantize) -> None:
    model, source = unpack(make_file(Recipe("min-max"))), unpack(MBN.read_bytes())
    weights, before = (_first_weights(entry) for entry in (model, source))
    scales = np.asarray(model.subgraphs[0].tensors[_first_operator(model, "CONV_2D").inputs[1]].quantization.scale)
    step = scales.reshape(-1, 1, 1, 1)
    # Half a step, and a little for the division in float32.
    assert (np.abs(weights.astype(np.float32) * step - before) <= 0.5001 * step).all()


def _first_operator(model: Any, kind: str) -> Any:
    number = getattr(tables.BuiltinOperator, kind)
    operators = model.subgraphs[0].operators
    return next(entry for entry in operators if model.operatorCodes[entry.opcodeIndex].builtinCode == number)


def _first_weights(model: Any) -> Array:
    found = constant(model, model.subgraphs[0].tensors[_first_operator(model, "CONV_2D").inputs[1]])
    assert found is not None
    return found


def test_what_a_cell_remembers_is_forgotten_between_samples() -> None:
    found = calibrate(remembering(), [{"x": np.full((1, 2), value, np.float32)} for value in (1, 2, 4)], lambda: None)
    answers = found.observation[found.prepared.graph.outputs[0]]
    assert (min(answers.minima), max(answers.maxima)) == (1, 4)  # sums over samples would reach 7


def test_multiplications_are_counted_on_the_shapes_that_were_seen(calibrated: Calibrated) -> None:
    work = calibrated.work()
    kinds = {node.name: node.kind for node in calibrated.prepared.nodes}
    first = next(name for name, kind in kinds.items() if kind == "CONV_2D")
    depthwise = next(name for name, kind in kinds.items() if kind == "DEPTHWISE_CONV_2D")
    last = next(name for name, kind in kinds.items() if kind == "FULLY_CONNECTED")
    assert work[first] == 32 * 32 * 16 * 9
    assert work[depthwise] == 16 * 16 * 64 * 9
    assert work[last] == 256 * 10


def _product(weight: Array, *, old: bool = False, half: bool = False) -> bytes:
    """`y = x W`, as files of 2020 number their operators, or with weights that are widened at each start."""
    specs = [Spec("x", (1, 4)), Spec("w", (4, 4), value=weight), Spec("y", (1, 4))]
    options = tables.FullyConnectedOptionsT()
    if half:
        specs += [Spec("stored", (4, 4), "float16", value=weight.astype(np.float16))]
        specs[1] = Spec("w", (4, 4))
        steps = [Step("DEQUANTIZE", (3,), (1,)), Step("FULLY_CONNECTED", (0, 1, -1), (2,), options)]
    else:
        steps = [Step("FULLY_CONNECTED", (0, 1, -1), (2,), options)]
    model = unpack(make(specs, steps, (0,), (2,)))
    for code in model.operatorCodes if old else []:
        code.builtinCode = 0
    return serialize(model)


@pytest.mark.parametrize("how", [{"old": True}, {"half": True}, {}], ids=["old numbers", "16-bit weights", "plain"])
def test_files_of_other_makers_are_quantized_too(tmp_path: Path, how: dict[str, bool]) -> None:
    weight = np.random.default_rng(3).normal(size=(4, 4)).astype(np.float32)
    data = _product(weight, **how)
    feeds = [{"x": np.random.default_rng(seed).normal(size=(1, 4)).astype(np.float32)} for seed in range(8)]
    found = calibrate(data, feeds, lambda: None)
    quantized = quantize(found.prepared, Recipe("min-max"), ["y"], found.ranges("min-max"))
    assert _kinds_on(read_model(quantized), "int8") == ["QUANTIZE", "FULLY_CONNECTED"]
    assert read_model(found.prepared.data).weights_bytes == weight.nbytes
    answers = []
    for name, content in {"float": data, "int8": quantized}.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        answers.append(open_runner(path).run(feeds[0])[0])
    # Three roundings to 255 steps of ranges of a few units.
    np.testing.assert_allclose(answers[1], answers[0], atol=0.1)
