"""Groups of nodes become the one operator that the standard has for them; everything else stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autoglm_edge_converter.build import build
from autoglm_edge_converter.float_graphs import calibrate
from autoglm_edge_converter.fusions import GELU_OPSET, fuse_gelu, pool_means
from autoglm_edge_converter.recipes import Recipe
from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.targets import TARGETS

SAMPLE = np.random.default_rng(1).normal(0, 2, (1, 3, 6, 6)).astype(np.float32)
NUMBERS = {"root": np.sqrt(2), "inverse": np.sqrt(0.5), "one": 1.0, "half": 0.5, "two": 2.0}
Node = tuple[str, list[str], str]

ERF: list[Node] = [("Div", ["x", "root"], "a"), ("Erf", ["a"], "b"), ("Add", ["b", "one"], "c")]
GELUS: dict[str, list[Node]] = {
    "half last": [*ERF, ("Mul", ["x", "c"], "d"), ("Mul", ["d", "half"], "y")],
    "half of the sum": [*ERF, ("Mul", ["c", "half"], "d"), ("Mul", ["x", "d"], "y")],
    "half of the input": [("Mul", ["x", "half"], "h"), *ERF, ("Mul", ["h", "c"], "y")],
    "product": [("Mul", ["inverse", "x"], "a"), *ERF[1:], ("Mul", ["c", "x"], "d"), ("Mul", ["half", "d"], "y")],
}
OTHERS: dict[str, list[Node]] = {
    "another factor": [*ERF, ("Mul", ["x", "c"], "d"), ("Mul", ["d", "two"], "y")],
    "another divisor": [("Div", ["x", "two"], "a"), *ERF[1:], ("Mul", ["x", "c"], "d"), ("Mul", ["d", "half"], "y")],
    "read elsewhere": [*ERF, ("Mul", ["x", "c"], "d"), ("Mul", ["d", "half"], "e"), ("Add", ["e", "b"], "y")],
    "half twice": [*ERF, ("Mul", ["c", "half"], "d"), ("Mul", ["d", "half"], "y")],
    "squared": [*ERF, ("Mul", ["c", "c"], "d"), ("Mul", ["d", "half"], "y")],
    "erf alone": [("Erf", ["x"], "y")],
}


def model(
    nodes: list[onnx.NodeProto], opset: int = 17, weights: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    constants = {name: np.array(value, np.float32) for name, value in NUMBERS.items()} | (weights or {})
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def from_table(nodes: list[Node]) -> list[onnx.NodeProto]:
    return [helper.make_node(kind, inputs, [output], f"n_{output}") for kind, inputs, output in nodes]


def answer(proto: onnx.ModelProto) -> np.ndarray:
    found: np.ndarray = open_session(proto.SerializeToString()).run(None, {"x": SAMPLE})[0]
    return found


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("nodes", GELUS.values(), ids=GELUS)
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_every_way_to_write_a_gelu_is_found_and_answers_the_same(nodes: list[Node], opset: int) -> None:
    proto = model(from_table(nodes), opset)
    fused = fuse_gelu(onnx.ModelProto.FromString(proto.SerializeToString()))
    assert "Gelu" in operators(fused)
    # The two forms round differently: 1e-6 of numbers up to 8.
    np.testing.assert_allclose(answer(fused), answer(proto), atol=1e-5)


@pytest.mark.parametrize("nodes", OTHERS.values(), ids=OTHERS)
def test_what_is_no_gelu_stays_and_so_does_its_operator_set(nodes: list[Node]) -> None:
    proto = model(from_table(nodes))
    assert fuse_gelu(onnx.ModelProto.FromString(proto.SerializeToString())) == proto


def test_every_supported_runtime_reads_the_operator_set_of_gelu() -> None:
    assert all(target.newest_opset >= GELU_OPSET for target in TARGETS.values() if target.newest_opset)


@pytest.mark.parametrize("keeps", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
@pytest.mark.parametrize("opset", [17, 20])
def test_means_over_the_picture_are_pools(keeps: int, axes: list[int], opset: int) -> None:
    if opset < 18:
        node = helper.make_node("ReduceMean", ["x"], ["y"], "m", axes=axes, keepdims=keeps)
    else:
        node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], "m", keepdims=keeps)
    proto = model([node], opset, {"axes": np.array(axes, np.int64)})
    before = answer(proto)
    pooled = pool_means(proto)
    assert operators(pooled) == ["GlobalAveragePool"] + ([] if keeps else ["Flatten"])
    after = answer(pooled)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, atol=1e-6)  # the order of 36 sums


@pytest.mark.parametrize("axes", [[1], [3], [1, 2, 3], [0, 2, 3]])
def test_other_means_stay(axes: list[int]) -> None:
    proto = model([helper.make_node("ReduceMean", ["x"], ["y"], "m", axes=axes)])
    assert operators(pool_means(proto)) == ["ReduceMean"]


def test_a_fused_gelu_is_one_kernel_of_the_quantized_graph_and_its_parts_are_not(tmp_path: Path) -> None:
    weights = {name: np.random.default_rng(2).normal(size=(3, 3, 1, 1)).astype(np.float32) for name in ("v", "w")}
    inner = [("Div", ["p", "root"], "a"), *ERF[1:], ("Mul", ["p", "c"], "d"), ("Mul", ["d", "half"], "e")]
    nodes = from_table([("Conv", ["x", "v"], "p"), *inner, ("Conv", ["e", "w"], "y")])
    counts = []
    for proto in (model(nodes, weights=weights), fuse_gelu(model(nodes, weights=weights))):
        seen = calibrate(proto, [{"x": SAMPLE}], lambda: None)
        quantized = build(proto, Recipe(), [node.name for node in seen.nodes], seen.observation)
        counts.append(executed(quantized, f"{tmp_path}/optimised.onnx"))
    apart, fused = counts
    assert apart.count("Erf") == fused.count("Gelu") == 1
    assert "Gelu" not in apart
    assert {"Div", "Add", "Mul"}.isdisjoint(fused)
    assert apart.count("QLinearConv") == fused.count("QLinearConv") == 2


def executed(proto: onnx.ModelProto, path: str) -> list[str]:
    """Return the operators of the graph that the runtime really runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = path
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]
