"""Following operators through the passes that a conversion really makes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autoglm_edge_converter.explain.explanation import ADDED, FOLDED, FUSED, GONE, KEPT, REPLACED, Fate, grouped
from autoglm_edge_converter.explain.graph import Graph, graph_of
from autoglm_edge_converter.explain.rewrites import Followed, Step, follow
from autoglm_edge_converter.passes import passes_for

RNG = np.random.default_rng(0)


def model(nodes: list[onnx.NodeProto], shape: list[int], opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    """A graph from `x` to `y`, both of `shape`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def through(proto: onnx.ModelProto, newest: int = 20) -> dict[str, Followed]:
    original, steps = graph_of(proto), []
    for name, rewrite in passes_for(newest).items():
        copy = onnx.ModelProto.FromString(proto.SerializeToString())
        proto = rewrite(copy)
        steps.append(Step(name, graph_of(proto)))
    return {entry.fate.name: entry for entry in follow(original, steps)}


def normalised() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "norm"),
        helper.make_node("Identity", ["n"], ["i"], "same"),
        helper.make_node("Relu", ["i"], ["y"], "relu"),
    ]
    ones = np.ones(3)
    return model(nodes, [1, 3, 8, 8], w=RNG.normal(size=(3, 3, 3, 3)), s=ones * 2, b=ones, m=ones * 0.1, v=ones)


def test_a_normalisation_is_told_to_be_in_the_convolution_before_it() -> None:
    found = through(normalised())
    assert (found["conv"].fate.became, found["relu"].fate.became) == (KEPT, KEPT)
    assert found["norm"].fate == Fate("BatchNormalization", "norm", FUSED, "Conv", "simplify")
    assert found["same"].fate.became == GONE
    carrier = found["relu"].carrier
    assert carrier is not None
    assert carrier.name.startswith("Relu_")  # followed through the renaming


def test_a_product_and_its_bias_become_one() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
        helper.make_node("Add", ["p", "b"], ["y"], "bias"),
    ]
    found = through(model(nodes, [1, 4], w=RNG.normal(size=(4, 4)), b=RNG.normal(size=(4,))))
    assert {found[name].fate.became for name in ("product", "bias")} == {FUSED}
    assert {found[name].fate.into for name in ("product", "bias")} == {"Gemm"}


def test_what_reads_constants_alone_is_folded() -> None:
    nodes = [
        helper.make_node("Exp", ["b"], ["e"], "ahead"),
        helper.make_node("Add", ["x", "e"], ["y"], "sum"),
    ]
    found = through(model(nodes, [1, 4], b=RNG.normal(size=(4,))))
    assert found["ahead"].fate.became == FOLDED
    assert found["sum"].fate.became == KEPT


def test_lowering_tells_what_an_operator_was_written_as() -> None:
    nodes = [helper.make_node("LayerNormalization", ["x", "s"], ["y"], "norm", axis=-1)]
    found = through(model(nodes, [1, 4], s=np.ones(4)), newest=16)
    fate = found["norm"].fate
    assert (fate.became, fate.why) == (REPLACED, "lower-opset")
    added = [entry.fate for entry in found.values() if entry.fate.became == ADDED]
    assert {"ReduceMean", "Sqrt"} <= {entry.operator for entry in added}
    assert {entry.why for entry in added} == {"lower-opset"}


def test_of_operators_made_one_only_one_is_kept() -> None:
    nodes = [
        helper.make_node("Slice", ["x", "zero", "two", "first"], ["s"], "rows"),
        helper.make_node("Slice", ["s", "zero", "three", "second"], ["y"], "columns"),
    ]
    before = graph_of(model(nodes, [4, 4]))
    joined = [helper.make_node("Slice", ["x", "zeros", "ends", "axes"], ["y"], "both")]
    found = follow(before, [Step("join", graph_of(model(joined, [4, 4])))])
    assert [entry.fate.became for entry in found] == [FUSED, KEPT]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_nothing_happens_where_nothing_changes(steps: int) -> None:
    graph = graph_of(normalised())
    found = follow(graph, [Step("idle", graph)] * steps)
    assert [entry.fate.became for entry in found] == [KEPT] * len(graph.operators)
    assert [entry.carrier for entry in found] == list(graph.operators)


def test_an_empty_graph_leaves_no_operator() -> None:
    found = follow(graph_of(normalised()), [Step("all", Graph(()))])
    assert {entry.fate.became for entry in found} == {GONE}
    assert {entry.carrier for entry in found} == {None}


def test_equal_fates_are_told_once() -> None:
    fates = [Fate("Conv", f"c{number}", KEPT) for number in range(5)] + [Fate("Relu", "r", KEPT)]
    groups = grouped(fates)
    assert [(group.operator, group.count, group.names) for group in groups] == [
        ("Conv", 5, ("c0", "c1", "c2")),
        ("Relu", 1, ("r",)),
    ]
