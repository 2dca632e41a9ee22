"""Custom operators, with a real library of them: onnxruntime-extensions, whose NegPos parts a tensor by sign."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime_extensions
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.converter.graphs import linear, linear_samples

from autoglm_edge_agent.inference.backends.onnxruntime import open_onnxruntime
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.opening import open_variant
from autoglm_edge_agent.inference.options import Plan, SessionOptions
from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.errors import BadOption, UnknownOperator
from autoglm_edge_converter.operators import (
    VARIABLE,
    CustomOperators,
    in_use,
    libraries_in_use,
    machine_of,
    unknown_operator,
)

LIBRARY = Path(onnxruntime_extensions.get_library_path())
MACHINE = platform.machine()


def with_custom_node(path: Path) -> Path:
    """Write y = positive part of x W, by a node of the domain ai.onnx.contrib."""
    weights = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
            helper.make_node("NegPos", ["p"], ["n", "y"], "sign", domain="ai.onnx.contrib"),
        ],
        "custom",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 4))],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def elf(path: Path, machine: int) -> Path:
    """Write the header of a shared library for another machine."""
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + machine.to_bytes(2, "little") + bytes(44))
    return path


def test_without_its_library_an_operator_is_named_with_its_domain_and_node(tmp_path: Path) -> None:
    with pytest.raises(UnknownOperator, match=r"ai\.onnx\.contrib:NegPos \(node 'sign'\).*--ops"):
        convert(with_custom_node(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz"), tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_libraries_travel_in_the_bundle_by_machine(tmp_path: Path) -> None:
    other = elf(tmp_path / "contrib.so", 183 if MACHINE != "aarch64" else 62)
    foreign = machine_of(other)
    options = Options(ops=CustomOperators(onnxruntime=(LIBRARY, other)), precisions=("fp32",))
    result = convert(with_custom_node(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz"), tmp_path / "o", options)
    variant = result.manifest.variants[0]
    assert variant.needs.custom_ops == {
        MACHINE: (f"ops/{MACHINE}/{LIBRARY.name}",),
        foreign: (f"ops/{foreign}/contrib.so",),
    }
    assert {path for paths in variant.needs.custom_ops.values() for path in paths} < set(variant.files)
    carried = result.directory / "ops" / MACHINE / LIBRARY.name
    assert carried.read_bytes() == LIBRARY.read_bytes()
    assert VARIABLE not in os.environ
    with pytest.raises(ModelUnusable, match="NegPos"):
        open_onnxruntime(result.directory / variant.model, variant.inputs, variant.outputs, SessionOptions())
    session = open_variant(result.directory, variant, Plan(runtime="onnxruntime"))
    assert (session.run([np.ones((2, 8), np.float32)])[0] >= 0).all()


def test_the_command_takes_libraries(tmp_path: Path) -> None:
    words = ["convert", str(with_custom_node(tmp_path / "m.onnx")), "--calibration"]
    words += [str(linear_samples(tmp_path / "s.npz")), "--output", str(tmp_path / "out"), "--ops", str(LIBRARY)]
    command = [sys.executable, "-c", "from autoglm_edge.app import main; main()", *words, "--precision", "fp32"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "m-1.0.0" / "ops" / MACHINE / LIBRARY.name).is_file()


def test_what_cannot_be_loaded_is_said_before_anything_is_done(tmp_path: Path) -> None:
    own = {"x86_64": 62, "aarch64": 183, "armv7l": 40}[MACHINE]
    (tmp_path / "text.so").write_text("no library, but long enough to have a header")
    cases = {
        "cannot be read": tmp_path / "missing.so",
        "no ELF shared library": tmp_path / "text.so",
        "for machine 999": elf(tmp_path / "odd.so", 999),
        "cannot be loaded by onnxruntime": elf(tmp_path / "broken.so", own),
    }
    model, samples = linear(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz")
    for says, library in cases.items():
        with pytest.raises(BadOption, match=says) as caught:
            convert(model, samples, tmp_path / "out", Options(ops=CustomOperators(onnxruntime=(library,))))
        assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.glob("out/*"))


def test_two_libraries_of_one_name_for_one_machine_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    machine = 183 if MACHINE != "aarch64" else 62
    pair = elf(tmp_path / "a/x.so", machine), elf(tmp_path / "b/x.so", machine)
    with pytest.raises(BadOption, match="same file name"), in_use(CustomOperators(onnxruntime=pair)):
        pass


def test_what_was_in_use_before_is_in_use_again() -> None:
    with in_use(CustomOperators(onnxruntime=(LIBRARY,))):
        assert libraries_in_use() == (str(LIBRARY.resolve()),)
        with in_use(CustomOperators()):
            assert libraries_in_use() == ()
        assert libraries_in_use() == (str(LIBRARY.resolve()),)
    assert libraries_in_use() == ()


def test_other_refusals_are_not_taken_for_unknown_operators() -> None:
    assert unknown_operator("Fatal error: out of memory", ()) is None
    node = helper.make_node("Turn", ["a"], ["b"], domain="my.ops")
    message = "[ONNXRuntimeError] : 1 : FAIL : Fatal error: my.ops:Turn(-1) is not a registered function/op"
    assert unknown_operator(message, (node,)) == ("my.ops:Turn", "b")
    assert unknown_operator(message, ()) == ("my.ops:Turn", "")
