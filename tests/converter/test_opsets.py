"""Operator sets: what is lowered for an old runtime answers the same, and what cannot be is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.opsets import (
    IR_OF_OPSET,
    OperatorStands,
    inline_functions,
    lower_opset,
    obstacles,
    oldest_format,
    raise_opset,
)
from autoglm_edge_converter.passes import passes_for
from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.source import opset_of
from autoglm_edge_converter.targets import demands_of

node = helper.make_node
X = np.random.default_rng(3).normal(size=(2, 4, 8)).astype(np.float32)


def model(nodes: Sequence[onnx.NodeProto], opset: int, axes: tuple[int | str, ...] = ("N", 4, 8)) -> onnx.ModelProto:
    """Return x -> the nodes -> y, with a square matrix `w`, ones of two lengths and a few integers to read."""
    matrix = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    constants = {
        "w": matrix,
        "ones4": np.ones(4, np.float32),
        "ones8": np.ones(8, np.float32),
        "shape": np.array([0, -1]),
        "one": np.array([1]),
        "zeros": np.zeros(2, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    return found


def answer(proto: onnx.ModelProto) -> np.ndarray:
    return np.asarray(open_session(proto.SerializeToString()).run(None, {"x": X})[0])


PRODUCT = node("MatMul", ["x", "w"], ["p"])
LOWERED = {
    "the same operators by another number": (23, 20, [PRODUCT, node("Reshape", ["p", "shape"], ["y"])]),
    "axes as an input, then as an attribute": (18, 17, [node("ReduceMean", ["x", "one"], ["y"])]),
    "a definition by older operators": (23, 20, [PRODUCT, node("RMSNormalization", ["p", "ones8"], ["y"])]),
    "a definition with an attribute left out": (24, 17, [PRODUCT, node("Swish", ["p"], ["y"])]),
    "one that the older set has with another meaning": (
        21,
        18,
        [node("GroupNormalization", ["x", "ones4", "ones4"], ["y"], num_groups=2)],
    ),
    "attention": (23, 20, [node("Attention", ["x", "x", "x"], ["y"], q_num_heads=2, kv_num_heads=2)]),
    "layer normalisation": (17, 13, [node("LayerNormalization", ["x", "ones8"], ["y"])]),
}


@pytest.mark.parametrize("name", LOWERED)
def test_a_lowered_model_answers_the_same(name: str) -> None:
    present, wanted, nodes = LOWERED[name]
    original = model(nodes, present)
    lowered = oldest_format(lower_opset(copy(original), wanted))
    assert opset_of(lowered) == wanted
    assert lowered.ir_version == IR_OF_OPSET[wanted]
    assert all(onnx.defs.has(entry.op_type, wanted, "") for entry in lowered.graph.node)
    # Definitions sum in another order than the runtime's own kernels: a few units in the last place of a float32.
    np.testing.assert_allclose(answer(lowered), answer(original), rtol=1e-5, atol=1e-5)


def test_an_operator_without_an_older_equal_is_named() -> None:
    scatter = node("TensorScatter", ["x", "x", "zeros"], ["y"], name="cache")
    with pytest.raises(OperatorStands, match=r"TensorScatter \(node 'cache'\) cannot be had with operator set 20"):
        lower_opset(model([PRODUCT, scatter], 24), 20)


def test_a_new_attribute_that_is_used_stands_in_the_way() -> None:
    plain = model([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], 24)
    rounding = model([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT, round_mode="down")], 24)
    assert list(obstacles(plain, 20)) == []
    assert [entry.op_type for entry in obstacles(rounding, 20)] == ["Cast"]


def test_what_is_old_enough_stays_and_what_is_old_is_raised() -> None:
    old = model([node("Softmax", ["x"], ["y"], axis=2)], 11)
    assert lower_opset(copy(old), 20) == old
    raised = raise_opset(copy(old), 17)
    assert opset_of(raised) == 17
    np.testing.assert_allclose(answer(raised), answer(old), rtol=1e-6, atol=1e-7)


def test_functions_of_the_model_are_seen_into() -> None:
    block = helper.make_function(
        "mine", "Block", ["a"], ["b"], [node("Relu", ["a"], ["r"]), node("Neg", ["r"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    proto = model([PRODUCT, node("Block", ["p"], ["y"], domain="mine")], 17)
    proto.functions.append(block)
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    inlined = inline_functions(copy(proto))
    assert [entry.op_type for entry in inlined.graph.node] == ["MatMul", "Relu", "Neg"]
    np.testing.assert_array_equal(answer(inlined), answer(proto))


@pytest.mark.parametrize("newest", [13, 17, 20])
def test_no_pass_goes_above_what_a_target_reads(newest: int) -> None:
    proto = model([PRODUCT, node("Relu", ["p"], ["y"])], 11)
    passes = passes_for(newest)
    assert opset_of(passes["upgrade-opset"](copy(proto))) == min(17, newest)
    assert opset_of(passes["lower-opset"](model([PRODUCT, node("Relu", ["p"], ["y"])], 23))) == newest


def test_every_variant_of_a_new_model_is_one_that_the_target_reads(tmp_path: Path) -> None:
    nodes = [PRODUCT, node("RMSNormalization", ["p", "ones8"], ["n"]), node("Swish", ["n"], ["y"])]
    onnx.save(model(nodes, 24), tmp_path / "m.onnx")
    samples = np.random.default_rng(2).normal(size=(20, 1, 4, 8)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=samples)
    options = Options(targets=("rpi4",), run_oldest=False, precisions=("fp32", "fp16"), max_drop=0.05)
    result = convert(tmp_path / "m.onnx", tmp_path / "s.npz", tmp_path / "out", options)
    newest = demands_of(("rpi4",)).newest_opset
    for variant in result.manifest.variants:
        written = onnx.load(result.directory / variant.model)
        assert opset_of(written) <= newest
        assert written.ir_version <= IR_OF_OPSET[newest]
        assert variant.needs.min_version
