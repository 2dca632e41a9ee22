"""Small TFLite files made table by table, so that a test says exactly what is in its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.converter.graphs import DIGITS

from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.tflite.editing import serialize
from autoglm_edge_converter.tflite.schema import DTYPES, tables

MBN = DIGITS / "mbn.tflite"

NUMBERS = {name: number for number, name in DTYPES.items()}


@dataclass(frozen=True)
class Spec:
    """A tensor: with a value it is a constant. A free axis is -1."""

    name: str
    shape: Sequence[int]
    dtype: str = "float32"
    value: Array | None = None
    variable: bool = False


@dataclass(frozen=True)
class Step:
    """An operator by its builtin name, or a custom one."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Any = None
    version: int = 1
    custom: bool = False


def make(
    tensors: Sequence[Spec],
    steps: Sequence[Step],
    inputs: Sequence[int],
    outputs: Sequence[int],
    signature: tuple[dict[str, int], dict[str, int]] | None = None,
) -> bytes:
    """Return a file of one graph."""
    model = tables.ModelT()
    model.version = 3
    model.buffers = [tables.BufferT()]
    graph = tables.SubGraphT()
    graph.name = "main"
    graph.tensors = [_tensor(model, spec) for spec in tensors]
    graph.inputs, graph.outputs = list(inputs), list(outputs)
    model.operatorCodes, graph.operators = [], []
    for step in steps:
        graph.operators.append(_operator(model, step))
    model.subgraphs = [graph]
    if signature is not None:
        entry = tables.SignatureDefT()
        entry.signatureKey = "serving_default"
        entry.inputs, entry.outputs = ([_named(*item) for item in side.items()] for side in signature)
        model.signatureDefs = [entry]
    return serialize(model)


def difference(signature: tuple[dict[str, int], dict[str, int]] | None = None) -> bytes:
    """`first - second` of two [n, 2] inputs."""
    specs = [Spec("first", (-1, 2)), Spec("second", (-1, 2)), Spec("result", (-1, 2))]
    return make(specs, [Step("SUB", (0, 1), (2,), tables.SubOptionsT())], (0, 1), (2,), signature)


def remembering() -> bytes:
    """A cell whose state is `x + state` and is the answer: `x` and `y` are [1, 2], the state begins at zero."""
    eye = np.eye(2, dtype=np.float32)
    specs = [
        Spec("x", (1, 2)),
        Spec("weights", (2, 2), value=eye),
        Spec("recurrent", (2, 2), value=eye),
        Spec("bias", (2,), value=np.zeros(2, np.float32)),
        Spec("state", (1, 2), variable=True),
        Spec("y", (1, 2)),
    ]
    return make(specs, [Step("RNN", (0, 1, 2, 3, 4), (5,), tables.RNNOptionsT())], (0,), (5,))


def foreign() -> bytes:
    """One custom operator, `Swirl`."""
    return make([Spec("x", (1, 2)), Spec("y", (1, 2))], [Step("Swirl", (0,), (1,), custom=True)], (0,), (1,))


def naming(kind: str, version: int) -> bytes:
    """A file that names an operator and has none: runtimes look up what is named."""
    model = tables.ModelT()
    model.version = 3
    model.buffers = [tables.BufferT()]
    model.operatorCodes = [_code(Step(kind, (), (), version=version))]
    graph = tables.SubGraphT()
    graph.tensors, graph.operators = [_tensor(model, Spec("x", (1,)))], []
    graph.inputs, graph.outputs = [0], [0]
    model.subgraphs = [graph]
    return serialize(model)


def _tensor(model: Any, spec: Spec) -> Any:
    tensor = tables.TensorT()
    tensor.name = spec.name
    tensor.shape = [max(1, size) for size in spec.shape]
    if any(size < 0 for size in spec.shape):
        tensor.shapeSignature = list(spec.shape)
    tensor.type = NUMBERS[spec.dtype]
    tensor.isVariable = spec.variable
    if spec.value is not None:
        buffer = tables.BufferT()
        buffer.data = np.frombuffer(spec.value.tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    return tensor


def _code(step: Step) -> Any:
    code = tables.OperatorCodeT()
    number = getattr(tables.BuiltinOperator, "CUSTOM" if step.custom else step.kind)
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.customCode = step.kind if step.custom else None
    code.version = step.version
    return code


def _operator(model: Any, step: Step) -> Any:
    operator = tables.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes)
    model.operatorCodes.append(_code(step))
    operator.inputs, operator.outputs = list(step.inputs), list(step.outputs)
    if step.options is not None:
        kind = type(step.options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(tables.BuiltinOptions, kind)
        operator.builtinOptions = step.options
    return operator


def _named(name: str, index: int) -> Any:
    entry = tables.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
