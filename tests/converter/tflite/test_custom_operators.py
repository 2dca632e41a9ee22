"""Custom operators in TFLite files, with the library that LiteRT's own wheel carries for generative models."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
import pytest
from flatbuffers import flexbuffers
from tests.converter.tflite.files import Spec, Step, make

from autoglm_edge_agent.inference.isolated import ask
from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.errors import BadOption, UnknownOperator
from autoglm_edge_converter.operators import CustomOperators, Registerer, custom_operators, machine_of
from autoglm_edge_converter.tflite.editing import serialize, unpack
from autoglm_edge_protocol import bundle

LIBRARY = Path(ai_edge_litert.__file__).parent / "pywrap_genai_ops.so"
FUNCTION = "GenAIOpsRegisterer"
ATTENTION = "odml.scaled_dot_product_attention"
HEADS, SIZE, STEPS = 2, 4, 3


def attention(path: Path) -> Path:
    """A product, and the custom operator: `q` [1,8] asks constant keys and values, the answer is [1,1,2,4]."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    from autoglm_edge_converter.tflite.schema import tables

    size = HEADS * SIZE
    specs = [
        Spec("q", (1, size)),
        Spec("weights", (size, size), value=normal(size, size)),
        Spec("product", (1, size)),
        Spec("shape", (4,), "int32", value=np.array([1, 1, HEADS, SIZE], np.int32)),
        Spec("query", (1, 1, HEADS, SIZE)),
        Spec("keys", (1, STEPS, HEADS, SIZE), value=normal(1, STEPS, HEADS, SIZE)),
        Spec("values", (1, STEPS, HEADS, SIZE), value=normal(1, STEPS, HEADS, SIZE)),
        Spec("mask", (1, 1, 1, STEPS), value=np.zeros((1, 1, 1, STEPS), np.float32)),
        Spec("y", (1, 1, HEADS, SIZE)),
    ]
    steps = [
        Step("FULLY_CONNECTED", (0, 1, -1), (2,), tables.FullyConnectedOptionsT()),
        Step("RESHAPE", (2, 3), (4,), tables.ReshapeOptionsT()),
        Step(ATTENTION, (4, 5, 6, 7), (8,), custom=True),
    ]
    changed = unpack(make(specs, steps, (0,), (8,)))
    options = flexbuffers.Builder()
    with options.Map():
        options.Key("scale")
        options.Float(SIZE**-0.5)
    changed.subgraphs[0].operators[2].customOptions = list(bytes(options.Finish()))
    path.write_bytes(serialize(changed))
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.npz"
    np.savez(path, q=np.random.default_rng(1).normal(size=(60, HEADS * SIZE)).astype(np.float32))
    return path


def test_without_its_library_the_operator_is_named_and_refused(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownOperator, match=r"scaled_dot_product_attention.*give its library with --ops"):
        convert(attention(tmp_path / "a.tflite"), questions, tmp_path / "out")


def test_with_its_library_the_model_is_converted_and_the_library_travels_along(questions: Path, tmp_path: Path) -> None:
    ops = custom_operators([f"{LIBRARY}:{FUNCTION}"])
    assert ops == CustomOperators(litert=(Registerer(LIBRARY, FUNCTION),))
    options = Options(ops=ops, max_drop=0.2, precisions=("fp32", "fp16"))
    result = convert(attention(tmp_path / "a.tflite"), questions, tmp_path / "out", options)
    manifest = bundle.verify(result.directory)
    machine = machine_of(LIBRARY)
    inside = f"ops/{machine}/{LIBRARY.name}"
    for variant in manifest.variants:
        assert variant.needs.custom_ops == {machine: (inside,)}
        assert variant.needs.custom_op_registerers == {inside: FUNCTION}
        # As on a device, in a process of its own: a second copy of the library in this one would end it badly.
        question: dict[str, Any] = {"bundle": str(result.directory), "variant": variant.id, "seconds": 0.01}
        question["plan"] = Plan(runtime="litert").model_dump(mode="json")
        outcome = asyncio.run(ask("autoglm_edge_agent.inference.probe", question, 120.0))
        assert outcome.how == "answered", outcome.why
    assert (result.directory / inside).read_bytes() == LIBRARY.read_bytes()


def test_a_library_that_does_not_have_the_operator_is_said(questions: Path, tmp_path: Path) -> None:
    changed = unpack(attention(tmp_path / "a.tflite").read_bytes())
    next(code for code in changed.operatorCodes if code.customCode).customCode = b"Swirl"
    (tmp_path / "b.tflite").write_bytes(serialize(changed))
    options = Options(ops=custom_operators([f"{LIBRARY}:{FUNCTION}"]))
    with pytest.raises(UnknownOperator, match=r"Swirl.*none of the libraries"):
        convert(tmp_path / "b.tflite", questions, tmp_path / "out", options)


@pytest.mark.parametrize("function", ["NoSuchFunction"])
def test_a_library_without_the_function_is_one_line(function: str, questions: Path, tmp_path: Path) -> None:
    copy = shutil.copy(LIBRARY, tmp_path / LIBRARY.name)
    options = Options(ops=custom_operators([f"{copy}:{function}"]))
    with pytest.raises(BadOption, match=r"cannot be loaded by LiteRT"):
        convert(attention(tmp_path / "a.tflite"), questions, tmp_path / "out", options)
