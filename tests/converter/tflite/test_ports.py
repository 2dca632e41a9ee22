"""Giving a TFLite file the names and the order that the model had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.tflite.files import Spec, Step, difference, make

from autoglm_edge_converter.errors import BadModel
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.ports import rename_ports

A, B = np.array([[3.0, 5.0]], np.float32), np.array([[1.0, 1.5]], np.float32)


@pytest.mark.parametrize(
    ("signature", "wanted", "result"),
    [
        (None, ["a", "b"], [[2.0, 3.5]]),
        (({"b": 0, "a": 1}, {"y": 2}), ["a", "b"], [[-2.0, -3.5]]),
        (({"args_1": 0, "args_0": 1}, {"output_0": 2}), ["a", "b"], [[-2.0, -3.5]]),
    ],
    ids=["by position", "by the signature's names", "by the original's position"],
)
def test_ports_are_named_and_put_in_order(
    tmp_path: Path, signature: tuple[dict[str, int], dict[str, int]] | None, wanted: list[str], result: list[float]
) -> None:
    renamed = rename_ports(difference(signature), wanted, ["y"])
    found = read_model(renamed)
    assert [port.name for port in found.inputs] == wanted
    assert [port.name for port in found.outputs] == ["y"]
    assert [found.main.tensors[index].name for index in found.main.inputs] == wanted
    assert rename_ports(renamed, wanted, ["y"]) == renamed
    path = tmp_path / "difference.tflite"
    path.write_bytes(renamed)
    (answer,) = open_runner(path).run({"a": A, "b": B})
    np.testing.assert_array_equal(answer, result)  # small integers and halves are exact


def test_a_decorated_tensor_name_is_recognised() -> None:
    specs = [
        Spec("serving_default_b:0", (1,)),
        Spec("serving_default_a:0", (1,)),
        Spec("StatefulPartitionedCall:0", (1,)),
    ]
    renamed = read_model(rename_ports(make(specs, [Step("SUB", (0, 1), (2,))], (0, 1), (2,)), ["a", "b"], ["y"]))
    assert [port.name for port in renamed.inputs] == ["a", "b"]
    assert renamed.main.inputs == (1, 0)


def test_an_inner_tensor_of_the_same_name_gives_way() -> None:
    specs = [Spec("in", (1,)), Spec("y", (1,)), Spec("out", (1,))]
    data = make(specs, [Step("ABS", (0,), (1,)), Step("NEG", (1,), (2,))], (0,), (2,))
    names = [tensor.name for tensor in read_model(rename_ports(data, ["x"], ["y"])).main.tensors]
    assert names == ["x", "y;1", "y"]


def test_one_tensor_may_be_input_and_output(tmp_path: Path) -> None:
    path = tmp_path / "same.tflite"
    path.write_bytes(
        rename_ports(
            make([Spec("t", (1, 2)), Spec("u", (1, 2))], [Step("ABS", (0,), (1,))], (0,), (0, 1)), ["x"], ["x_out", "y"]
        )
    )
    assert [port.name for port in read_model(path.read_bytes()).outputs] == ["x_out", "y"]
    same, absolute = open_runner(path).run({"x": -A})
    np.testing.assert_array_equal(same, -A)
    np.testing.assert_array_equal(absolute, A)


def test_another_number_of_ports_is_refused() -> None:
    with pytest.raises(BadModel, match="has 2 inputs"):
        rename_ports(difference(), ["x"], ["y"])
    with pytest.raises(BadModel, match="same name"):
        rename_ports(difference(), ["x", "x"], ["y"])
