"""Rewrites leave the answers as they are; what does not is dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.converter.graphs import DIGITS, linear

from autoglm_edge_converter.equalise import equalise, smooth_scales
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.inspection import weighted_nodes, with_followers
from autoglm_edge_converter.optimise import PassOutcome, optimise
from autoglm_edge_converter.passes import PASSES
from autoglm_edge_converter.quality import Score, score
from autoglm_edge_converter.quantize import needless_boundaries
from autoglm_edge_converter.ranges import min_max, observe, percentile, tensors_of
from autoglm_edge_converter.runners.onnx import open_session

FEEDS = [{"x": image} for image in np.random.default_rng(5).random((6, 1, 1, 32, 32), dtype=np.float32)]


def answers(model: onnx.ModelProto) -> tuple[tuple[np.ndarray, ...], ...]:
    session = open_session(model.SerializeToString())
    return tuple(tuple(session.run(None, feed)) for feed in FEEDS)


@pytest.mark.parametrize("name", ["mbn", "res"])
def test_every_pass_leaves_the_answers(name: str) -> None:
    original = onnx.load(DIGITS / f"{name}.onnx")
    references = answers(original)
    outcomes: list[PassOutcome] = []

    def check(model: onnx.ModelProto) -> Score:
        return score(["y"], references, answers(model))

    result = optimise(original, PASSES, check, outcomes.append)
    assert [(outcome.name, outcome.dropped) for outcome in outcomes] == [(name, None) for name in PASSES]
    names = [node.name for node in result.graph.node]
    assert len(set(names)) == len(names)
    assert [value.name for value in (*result.graph.input, *result.graph.output)] == ["x", "y"]
    assert original == onnx.load(DIGITS / f"{name}.onnx")


def test_a_pass_that_fails_changes_answers_or_does_not_run_is_dropped() -> None:
    original = onnx.load(DIGITS / "mbn.onnx")
    references = answers(original)

    def failing(model: onnx.ModelProto) -> onnx.ModelProto:
        raise RuntimeError("cannot\nat all")

    def changing(model: onnx.ModelProto) -> onnx.ModelProto:
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
        return model

    def breaking(model: onnx.ModelProto) -> onnx.ModelProto:
        model.graph.node[0].input[0] = "nowhere"
        return model

    def check(model: onnx.ModelProto) -> Score:
        try:
            return score(["y"], references, answers(model))
        except Exception as error:
            raise CandidateFailed(str(error).splitlines()[0]) from None

    passes = {"failing": failing, "changing": changing, "breaking": breaking}
    outcomes: list[PassOutcome] = []
    result = optimise(original, passes, check, outcomes.append)
    assert result == original
    said = [outcome.dropped or "" for outcome in outcomes]
    assert said[0] == "failed: cannot"
    assert "changes the answers" in said[1]
    assert "does not run" in said[2]


def chain() -> onnx.ModelProto:
    """x -> Conv -> Slice -> Erf -> Conv -> Relu -> MaxPool -> y, the inner channels of very different size."""
    random = np.random.default_rng(7)
    first = random.normal(size=(6, 1, 3, 3)).astype(np.float32)
    first *= np.array([1, 3, 10, 30, 100, 300], np.float32).reshape(-1, 1, 1, 1)
    second = random.normal(size=(4, 6, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["c1"], "conv_a"),
            helper.make_node("Slice", ["c1", "from", "to"], ["s"], "slice"),
            helper.make_node("Mul", ["s", "s"], ["e"], "square"),
            helper.make_node("Conv", ["e", "w2"], ["c2"], "conv_b"),
            helper.make_node("Relu", ["c2"], ["r"], "relu"),
            helper.make_node("MaxPool", ["r"], ["y"], "pool", kernel_shape=[2, 2]),
        ],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 1, 32, 32))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(first, "w1"),
            numpy_helper.from_array(second, "w2"),
            numpy_helper.from_array(np.array([0], np.int64), "from"),
            numpy_helper.from_array(np.array([1], np.int64), "to"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_followers_are_quantized_with_their_nodes_but_not_what_only_moves_numbers_to_float() -> None:
    graph = chain().graph
    assert [node.name for node in weighted_nodes(graph)] == ["conv_a", "conv_b"]
    assert with_followers(graph, ["conv_a", "conv_b"]) == {"conv_a", "conv_b", "relu", "pool"}
    assert with_followers(graph, ["conv_a"]) == {"conv_a"}


def test_equalising_changes_nothing_in_float_and_evens_the_channels() -> None:
    model = chain()
    nodes = weighted_nodes(model.graph)
    axes = {"x": 1, "c1": 1, "e": 1, "c2": 1}
    tensors = tensors_of(model.graph, [node.name for node in nodes])
    seen = observe(model, tensors, axes, FEEDS, lambda: None)
    even = equalise(model, nodes, seen)
    found = score(["y"], answers(model), answers(even))
    # Scaling by other than powers of two rounds each product once more: 120 dB and better in single precision.
    assert found.sqnr_db is None or found.sqnr_db > 110
    assert {"conv_a_back", "conv_b_even"} <= {node.name for node in even.graph.node}
    after = observe(even, ["conv_b_evened"], {"conv_b_evened": 1}, FEEDS, lambda: None)["conv_b_evened"]
    before = seen["e"].channel_peaks
    assert before is not None
    assert after.channel_peaks is not None
    assert after.channel_peaks.max() / after.channel_peaks.min() < 0.1 * before.max() / before.min()


def test_even_or_dead_channels_are_left_alone() -> None:
    ones = np.ones(4, np.float32)
    assert smooth_scales(ones, ones) is None
    assert smooth_scales(np.array([0, 1, 5, 9], np.float32), ones) is None


def test_ranges_hold_zero_and_percentiles_ignore_one_odd_sample() -> None:
    model = onnx.load(DIGITS / "mbn.onnx")
    feeds = [*FEEDS, {"x": np.full((1, 1, 32, 32), 50, np.float32)}]
    seen = observe(model, ["x"], {}, feeds, lambda: None)["x"]
    assert min_max(seen) == (0.0, 50.0)
    # One sample in seven is 50 throughout, so the value percentile sees it; the odd pixel below does not count.
    spiked = FEEDS[0]["x"].copy()
    spiked[0, 0, 0, 0] = 1000
    quiet = observe(model, ["x"], {}, [*FEEDS * 4, {"x": spiked}], lambda: None)["x"]
    low, high = percentile(quiet)
    assert low <= 0 < high < 2


def test_a_product_that_float_reads_is_not_sent_through_8_bits(tmp_path: Path) -> None:
    graph = onnx.load(linear(tmp_path / "m.onnx")).graph
    assert needless_boundaries(graph, ["product"]) == {"p"}
    assert needless_boundaries(graph, ["product", "bias"]) == frozenset()
