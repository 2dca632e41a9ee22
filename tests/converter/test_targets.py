"""Targets: what several boards together demand, and what does not suit them."""

from __future__ import annotations

import itertools

import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.targets import NEWEST_OPSET, OLDEST_READER, ONNX, TARGETS, demands_of, newest_opset

ABLE = [name for name, target in TARGETS.items() if target.runtime(ONNX)]


def test_names_are_keys_and_every_board_has_a_runtime() -> None:
    for name, target in TARGETS.items():
        assert target.name == name
        assert target.runtimes
        assert target.memory_bytes > 0 < target.cores


def test_the_oldest_runtime_decides_the_operator_set() -> None:
    assert newest_opset("1.12") == newest_opset("1.13.1") == 17
    assert newest_opset("1.17") == 20
    assert newest_opset("1.20") == 21
    assert newest_opset("0.1") == 0


@given(st.lists(st.sampled_from(ABLE), min_size=1, max_size=4, unique=True))
def test_several_targets_demand_what_suits_all(names: list[str]) -> None:
    together = demands_of(names)
    for name in names:
        assert together.newest_opset <= TARGETS[name].newest_opset
        assert (together.memory_bytes or 0) <= TARGETS[name].memory_bytes
    assert together.signed == all(TARGETS[name].signed for name in names)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(["rpi4", "rpi5", "x86-64"], 2)))
def test_the_order_of_targets_does_not_matter(one: str, other: str) -> None:
    first, second = demands_of([one, other]), demands_of([other, one])
    assert (first.newest_opset, first.signed, first.memory_bytes) == (
        second.newest_opset,
        second.signed,
        second.memory_bytes,
    )


def test_unknown_boards_and_boards_without_the_runtime_are_refused() -> None:
    with pytest.raises(BadOption, match="rpi5"):
        demands_of(["rpi99"])
    with pytest.raises(BadOption, match="no wheel for armv7l"):
        demands_of(["armv7"])


def test_a_target_needs_a_runtime_for_one_of_the_formats() -> None:
    assert demands_of(["armv7"], ("onnx", "tflite")).oldest_for("onnx") == ()
    both = demands_of(["armv7", "rpi5"], ("onnx", "tflite"))
    assert [runtime.name for runtime in both.oldest_for("tflite")] == ["litert", "tflite"]
    assert [runtime.name for runtime in both.oldest_for("onnx")] == ["onnxruntime"]
    # A device of one target may have either runtime installed.
    assert demands_of(["rpi4"], ("tflite",)).oldest_for("tflite") == both.oldest_for("tflite")
    with pytest.raises(BadOption, match="add --format tflite"):
        demands_of(["armv7"], ("onnx",))


def test_every_operator_set_that_the_installed_runtime_reads_is_in_the_table() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
    for opset in range(min(OLDEST_READER), NEWEST_OPSET + 1):
        imports = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
        try:
            onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Fail:
            continue
        assert opset in OLDEST_READER
        assert newest_opset(onnxruntime.__version__) >= opset
