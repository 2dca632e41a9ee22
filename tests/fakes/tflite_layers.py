"""Writes small TFLite files around one fully connected layer, by LiteRT's own tables of the schema."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

INPUT_SCALE, INPUT_ZERO = 4 / 127, 5
OUTPUT_SCALE, OUTPUT_ZERO = 8 / 127, -3


def linear_tflite(weights: Array, bias: Array, *, int8: bool = False, normalised: bool = False) -> bytes:
    """y = x @ W + b, [1, in] -> [1, out]; with `int8` all in 8 bits, with the scales above.

    With `normalised` y has length 1, by an operator that XNNPACK does not have.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = [], [0], [3]
    wide, out = weights.shape
    weight_scale = float(np.abs(weights).max()) / 127
    kinds: list[tuple[str, tuple[int, ...], npt.NDArray[Any] | None, float, int]] = [
        ("x", (1, wide), None, INPUT_SCALE, INPUT_ZERO),
        ("W", (out, wide), weights.T.copy(), weight_scale, 0),
        ("b", (out,), bias, weight_scale * INPUT_SCALE, 0),
        ("y", (1, out), None, OUTPUT_SCALE, OUTPUT_ZERO),
    ]
    for name, shape, data, scale, zero in kinds:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), schema.TensorType.FLOAT32
        if int8:
            tensor.type = schema.TensorType.INT32 if name == "b" else schema.TensorType.INT8
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
            data = data if data is None else np.rint(data / scale).astype(np.int32 if name == "b" else np.int8)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    layer = schema.OperatorT()
    layer.inputs, layer.outputs = [0, 1, 2], [3]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [layer]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if int8 else 1
    model.operatorCodes, model.subgraphs = [code], [graph]
    if normalised:
        _normalise(model, schema)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _normalise(model: Any, schema: Any) -> None:
    """Put a layer behind the last one, whose output gets another name."""
    (graph,) = model.subgraphs
    before, answer = graph.tensors[graph.outputs[0]], schema.TensorT()
    answer.name, answer.shape, answer.type = before.name, before.shape, before.type
    before.name = b"before"
    graph.tensors.append(answer)
    layer, code = schema.OperatorT(), schema.OperatorCodeT()
    layer.opcodeIndex, layer.inputs, layer.outputs = len(model.operatorCodes), graph.outputs, [len(graph.tensors) - 1]
    layer.builtinOptionsType, layer.builtinOptions = schema.BuiltinOptions.L2NormOptions, schema.L2NormOptionsT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.L2_NORMALIZATION
    code.version = 1
    graph.operators.append(layer)
    model.operatorCodes.append(code)
    graph.outputs = layer.outputs
