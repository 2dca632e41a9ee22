"""Which version of an operator a quantized one is, so that a runtime that is too old refuses it instead of failing.

The quantizer leaves versions as they were in float. Source of the rules: `op_version.cc` of LiteRT; only what
quantization changes is derived here, everything else keeps the version that the float file has.
"""

from __future__ import annotations

from copy import copy

from autoglm_edge_converter.tflite.schema import OPERATORS, Table, tables

_INT8, _FLOAT32, _FLOAT16 = (getattr(tables.TensorType, name) for name in ("INT8", "FLOAT32", "FLOAT16"))

_ON_INT8 = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "BROADCAST_TO": 3,
    **dict.fromkeys(("DIV", "GATHER_ND", "HARD_SWISH", "QUANTIZE", "RESHAPE", "SELECT_V2"), 1),
}
"""Those whose version for 8-bit data is not 2."""

_HYBRID = {"CONV_2D": (2, 5), "DEPTHWISE_CONV_2D": (4, 6), "FULLY_CONNECTED": (3, 12)}
"""With 8-bit weights and float data: one scale, one scale per channel."""

_DATA_INPUT = {"SPLIT": 1, "TRANSPOSE_CONV": 2}
"""Which input holds the data, where it is not the first."""


def stamp_versions(model: Table) -> None:
    """Raise the operators' versions to what their tensors ask for. Changes the model."""
    codes: list[Table] = []
    places: dict[tuple[int, int], int] = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            version = max(code.version, _needed(model, graph, operator))
            key = (operator.opcodeIndex, version)
            if key not in places:
                places[key] = len(codes)
                codes.append(copy(code))
                codes[-1].version = version
            operator.opcodeIndex = places[key]
    model.operatorCodes = codes


def _needed(model: Table, graph: Table, operator: Table) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    kind = OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "")
    inputs = [graph.tensors[index] if index >= 0 else None for index in operator.inputs]
    place = _DATA_INPUT.get(kind, 0)
    data = inputs[place] if place < len(inputs) else None
    if data is None:
        return 1
    if kind == "DEQUANTIZE":
        return {_FLOAT16: 3, _INT8: 5 if _per_channel(data) else 2}.get(data.type, 1)
    if kind in _HYBRID and data.type == _FLOAT32:
        weight = inputs[1]
        return _HYBRID[kind][_per_channel(weight)] if weight is not None and weight.type == _INT8 else 1
    return _for_int8(kind, graph, operator) if data.type == _INT8 else 1


def _for_int8(kind: str, graph: Table, operator: Table) -> int:
    if kind == "TRANSPOSE_CONV":
        return 3 if len(operator.inputs) > 3 and operator.inputs[3] >= 0 else 2
    if kind == "MUL" and _rescales_up(graph, operator):
        return 3
    return _ON_INT8.get(kind, 2)


def _per_channel(tensor: Table) -> bool:
    found = tensor.quantization
    return found is not None and found.scale is not None and len(found.scale) > 1


def _rescales_up(graph: Table, operator: Table) -> bool:
    scales = []
    for index in (*operator.inputs[:2], operator.outputs[0]):
        found = graph.tensors[index].quantization
        if found is None or found.scale is None or not len(found.scale):
            return False
        scales.append(float(found.scale[0]))
    return scales[0] * scales[1] >= scales[2]
