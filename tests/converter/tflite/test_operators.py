"""Which operators a runtime reads."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from ai_edge_litert.interpreter import Interpreter
from tests.converter.tflite.files import MBN, Spec, Step, foreign, make, naming

from autoglm_edge_converter.errors import UnknownOperator
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.operators import check_operators, newest_versions, unreadable

X_TO_Y = [Spec("x", (1, 2)), Spec("y", (1, 2))]


def test_the_table_says_of_the_installed_release_what_its_interpreter_says() -> None:
    newest = newest_versions("litert", version("ai-edge-litert"))
    for kind, number in newest.items():
        Interpreter(model_content=naming(kind, number))
        with pytest.raises(ValueError, match="Didn't find op"):
            Interpreter(model_content=naming(kind, number + 1))


@pytest.mark.parametrize(
    ("kind", "number", "runtime", "release", "line"),
    [
        ("FULLY_CONNECTED", 12, "tflite", "2.14", "tflite-runtime 2.14 reads FULLY_CONNECTED up to version 10"),
        ("SQRT", 2, "tflite", "2.14", "tflite-runtime 2.14 reads SQRT up to version 1"),
        ("SQRT", 2, "litert", "1.4.0", "LiteRT 1.4.0 reads SQRT up to version 1"),
        ("STABLEHLO_COMPOSITE", 1, "tflite", "2.14", "tflite-runtime 2.14 has no operator STABLEHLO_COMPOSITE"),
        ("FULLY_CONNECTED", 12, "litert", "1.0", None),
        ("SQRT", 2, "litert", "2.0.3", None),
    ],
)
def test_what_a_release_does_not_read_is_named(
    kind: str, number: int, runtime: str, release: str, line: str | None
) -> None:
    found = [str(entry) for entry in unreadable(read_model(naming(kind, number)), runtime, release)]
    assert len(found) == (0 if line is None else 1)
    assert all(text.startswith(line or "") for text in found)


def test_a_float_file_of_tensorflow_is_read_by_all() -> None:
    assert unreadable(read_model(MBN.read_bytes()), "tflite", "2.14") == ()


def test_another_runtime_is_refused() -> None:
    with pytest.raises(KeyError):
        unreadable(read_model(foreign()), "onnxruntime", "1.20")


def test_a_custom_operator_is_named_and_refused_unless_known() -> None:
    with pytest.raises(UnknownOperator, match=r"operator Swirl .node 'y'. is a custom one") as caught:
        check_operators(read_model(foreign()))
    assert caught.value.operator == "Swirl"
    check_operators(read_model(foreign()), known=("Swirl",))


@pytest.mark.parametrize("kind", ["FlexAdd", "FlexErf"])
def test_operators_of_tensorflow_are_refused_with_their_name(kind: str) -> None:
    data = make(X_TO_Y, [Step(kind, (0,), (1,), custom=True)], (0,), (1,))
    with pytest.raises(UnknownOperator, match=f"TensorFlow's own {kind.removeprefix('Flex')}"):
        check_operators(read_model(data))


def test_the_detector_head_that_every_runtime_has_is_no_custom_operator() -> None:
    check_operators(
        read_model(make(X_TO_Y, [Step("TFLite_Detection_PostProcess", (0,), (1,), custom=True)], (0,), (1,)))
    )
