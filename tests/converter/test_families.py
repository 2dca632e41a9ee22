"""Families of candidates against the float graph: how much noise each may bring, and what each saves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.converter.graphs import DIGITS

from autoglm_edge_converter.bias import correct_biases
from autoglm_edge_converter.build import build
from autoglm_edge_converter.float_graphs import Calibrated, calibrate
from autoglm_edge_converter.lookups import fold_tables, look_up_rows
from autoglm_edge_converter.passes import PASSES, drop_unread
from autoglm_edge_converter.ranges import Activation, entropy, least_error, min_max
from autoglm_edge_converter.recipes import DYNAMIC, FLOAT, HALF, PAIRED, UINT8, WEIGHTS, Candidate, Recipe, Tuned
from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.targets import own_kind
from autoglm_edge_converter.twins import Kind, Twins

OWN = own_kind()
HERE = Kind(OWN.signed, OWN.saturates)
IMAGES = np.random.default_rng(5).random((12, 1, 1, 32, 32), dtype=np.float32)
FEEDS = [{"x": image} for image in IMAGES]


@pytest.fixture(scope="module")
def res() -> Calibrated:
    model = onnx.load(DIGITS / "res.onnx")
    for rewrite in PASSES.values():
        model = rewrite(model)
    return calibrate(model, FEEDS, lambda: None)


def noise_db(model: onnx.ModelProto, reference: onnx.ModelProto) -> float:
    one, two = (open_session(entry.SerializeToString()) for entry in (reference, model))
    expected = np.concatenate([one.run(None, feed)[0] for feed in FEEDS]).astype(np.float64)
    found = np.concatenate([two.run(None, feed)[0] for feed in FEEDS]).astype(np.float64)
    error = np.square(found - expected).sum()
    return float("inf") if error == 0 else float(10 * np.log10(np.square(expected).sum() / error))


def size(model: onnx.ModelProto) -> int:
    return len(model.SerializeToString())


# Limits: 16-bit floats have 11 bits of mantissa (about 70 dB), 8-bit weights alone 40 to 50, activations too 30 to 40.
@pytest.mark.parametrize(
    ("recipe", "least_db", "most_share"),
    [
        (Recipe(family=FLOAT), 120, 1.0),
        (Recipe(family=HALF), 60, 0.52),
        (Recipe(family=WEIGHTS), 35, 0.3),
        (Recipe(family=DYNAMIC), 35, 1.0),
        (Recipe("min-max"), 28, 0.3),
        (Recipe("least-error"), 28, 0.3),
        (Recipe("percentile"), 20, 0.3),
        (Recipe("min-max", signed=True), 28, 0.3),
        (Recipe("min-max", per_channel=False), 25, 0.3),
        (Recipe("min-max", correct_bias=True), 28, 0.3),
        (Recipe("min-max", weights=UINT8), 28, 0.3),
        (Recipe("min-max", weights=PAIRED), 28, 0.3),
    ],
)
def test_each_family_answers_nearly_as_float(
    res: Calibrated, recipe: Recipe, least_db: float, most_share: float
) -> None:
    names = [node.name for node in res.nodes]
    proto = correct_biases(res.proto, res.nodes, res.observation) if recipe.correct_bias else res.proto
    before = res.proto.SerializeToString()
    made = build(proto, recipe, names, res.observation)
    # Where sums of signed weights saturate, the same numbers with unsigned weights answer for the file.
    stand_in = Twins(HERE, Kind(recipe.signed, saturates=False)).judged_as(Candidate(recipe))
    answering = build(proto, stand_in.recipe, names, res.observation) if stand_in else made
    assert noise_db(answering, res.proto) > least_db
    assert size(made) <= most_share * size(res.proto) + 1000
    assert res.proto.SerializeToString() == before
    onnx.checker.check_model(made)


def test_tuned_ranges_reach_the_file(res: Calibrated) -> None:
    names = [node.name for node in res.nodes]
    plain = build(res.proto, Recipe("min-max"), names, res.observation)
    first = res.proto.graph.input[0].name
    assert first in res.rounded(Recipe("min-max"))
    tuned = build(res.proto, Recipe("min-max"), names, res.observation, [Tuned(first, 0.5, 0.5)])
    scales = [
        {t.name: float(numpy_helper.to_array(t)) for t in model.graph.initializer if t.name == f"{first}_scale"}
        for model in (plain, tuned)
    ]
    assert scales[1][f"{first}_scale"] == pytest.approx(0.5 * scales[0][f"{first}_scale"], rel=0.02)


def test_correcting_biases_takes_out_the_mean_error(res: Calibrated) -> None:
    """Weights rounded to few bits have a mean effect; corrected ones have less of it."""
    node = next(entry for entry in res.nodes if entry.operator == "Conv")
    weight = numpy_helper.to_array(next(t for t in res.proto.graph.initializer if t.name == node.weight))
    corrected = correct_biases(res.proto, [node], res.observation)
    assert any(tensor.name == f"{node.name}_corrected" for tensor in corrected.graph.initializer)
    assert weight.shape[0] == next(
        tensor.dims[0] for tensor in corrected.graph.initializer if tensor.name == f"{node.name}_corrected"
    )
    # The shift is that of half a step in 254 at most, so the float answers hardly move.
    assert noise_db(corrected, res.proto) > 40


def one_hot(classes: int = 7) -> onnx.ModelProto:
    """x int32 [N,3] -> one-hot -> product -> tanh-like chain -> y; out of range gives a row of zeros first."""
    random = np.random.default_rng(1)
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["x", "axis"], ["u"], "u"),
            helper.make_node("Equal", ["u", "range"], ["e"], "e"),
            helper.make_node("Cast", ["e"], ["c"], "c", to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["c", "w"], ["p"], "p"),
            helper.make_node("Add", ["p", "b"], ["a"], "a"),
            helper.make_node("Tanh", ["a"], ["t"], "t"),
            helper.make_node("Mul", ["a", "t"], ["m"], "m"),
            helper.make_node("ReduceSum", ["m", "one"], ["y"], "y", keepdims=0),
        ],
        "one_hot",
        [helper.make_tensor_value_info("x", TensorProto.INT32, ("N", 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 5))],
        [
            numpy_helper.from_array(np.array([-1], np.int64), "axis"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.arange(classes, dtype=np.int32).reshape(1, 1, -1), "range"),
            numpy_helper.from_array(random.normal(size=(classes, 5)).astype(np.float32), "w"),
            numpy_helper.from_array(random.normal(size=(1, 1, 5)).astype(np.float32), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_rows_are_looked_up_and_what_follows_is_in_the_table() -> None:
    model = one_hot()
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made = drop_unread(fold_tables(look_up_rows(made)))
    operators = [node.op_type for node in made.graph.node]
    assert "Gather" in operators
    assert not {"MatMul", "Tanh", "Equal", "Mul"} & set(operators)
    feed = {"x": np.array([[0, 3, 6], [-1, 7, 2], [100, -5, 1]], np.int32)}
    expected, found = (open_session(entry.SerializeToString()).run(None, feed)[0] for entry in (model, made))
    # The same sums in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_another_range_than_from_zero_up_is_left_alone() -> None:
    model = one_hot()
    ordered = next(tensor for tensor in model.graph.initializer if tensor.name == "range")
    ordered.CopyFrom(numpy_helper.from_array(np.array([[[3, 1, 2, 0, 4, 5, 6]]], np.int32), "range"))
    assert [node.op_type for node in look_up_rows(model).graph.node].count("MatMul") == 1


def seen(values: np.ndarray) -> Activation:
    activation = Activation(values.shape)
    activation.see(values, None)
    return activation


def test_ranges_that_clip_keep_the_bulk_and_drop_a_lone_outlier() -> None:
    values = np.random.default_rng(0).normal(size=(40, 8000)).astype(np.float32)
    values[0, 0] = 12
    activation = Activation((8000,))
    for sample in values:
        activation.see(sample, None)
    assert min_max(activation)[1] == 12
    # Five standard deviations hold all but one in a million.
    low, high = least_error(activation)
    assert -6 < low < -3
    assert 4 < high < 10
    low, high = entropy(activation)
    assert -12 <= low <= 0
    assert 2 < high <= 12


def test_ranges_of_huge_values_are_chosen_in_double_precision() -> None:
    low, high = least_error(seen(np.array([-3e30, 1e30, 3e30] * 100, np.float32)))
    assert np.isfinite([low, high]).all()
    assert low < -1e30 and high > 1e30


@pytest.mark.parametrize("rule", [least_error, entropy])
def test_ranges_of_nothing_and_of_one_value_hold_zero(rule: object) -> None:
    assert callable(rule)
    for value in (0.0, 3.0, -2.0):
        low, high = rule(seen(np.full(10, value, np.float32)))
        assert low <= 0 <= high
