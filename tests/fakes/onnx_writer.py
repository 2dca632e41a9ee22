"""Writes small, valid ONNX models without the onnx package, which a device does not have.

The wire format of protocol buffers by hand (field number << 3 | wire type), with the field numbers of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FLOAT = 1
INT8 = 3
ELEMENTS = {
    "FP32": FLOAT,
    "UINT8": 2,
    "INT8": 3,
    "UINT16": 4,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "BYTES": 8,
    "BOOL": 9,
    "FP16": 10,
    "FP64": 11,
    "UINT32": 12,
    "UINT64": 13,
}
"""The numbers of TensorProto.DataType, by the names of the Open Inference Protocol."""
OPSET = 17
IR_VERSION = 8


def linear_model(
    weights: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    repeat: int = 1,
    body: npt.NDArray[np.float32] | None = None,
    note: str = "",
) -> bytes:
    """y = x @ W + b, [N, in] -> [N, out]; with `repeat` > 1 and square weights, that many times over (to be slow).

    With a square `body` x is multiplied by it first. The tensors lie in the file as body, W, b; the `note` is before
    them all.
    """
    nodes = b""
    value = "x"
    if body is not None:
        nodes += _message(1, _node("MatMul", ["x", "body"], "h"))
        value = "h"
    for number in range(repeat):
        product, result = f"p{number}", "y" if number == repeat - 1 else f"v{number}"
        nodes += _message(1, _node("MatMul", [value, "W"], product))
        nodes += _message(1, _node("Add", [product, "b"], result))
        value = result
    graph = nodes + _text(2, "linear")
    if body is not None:
        graph += _message(5, _tensor("body", body))
    graph += _message(5, _tensor("W", weights)) + _message(5, _tensor("b", bias))
    graph += _message(11, _value("x", weights.shape[0])) + _message(12, _value("y", weights.shape[1]))
    return _model(graph, note)


def identity_model(datatypes: Mapping[str, str]) -> bytes:
    """For each name and datatype an input of two free dimensions, and an output `NAME_out` that is the same."""
    graph = b"".join(_message(1, _node("Identity", [name], f"{name}_out")) for name in datatypes) + _text(2, "identity")
    for field, suffix in ((11, ""), (12, "_out")):
        for name, datatype in datatypes.items():
            shape = b"".join(_message(1, _text(2, f"{name}_{axis}")) for axis in "nm")
            tensor = _number(1, ELEMENTS[datatype]) + _message(2, shape)
            graph += _message(field, _text(1, name + suffix) + _message(2, _message(1, tensor)))
    return _model(graph)


def selecting_model() -> bytes:
    """y = those numbers of x whose place in `which` is true, n = how many: the shape of y depends on `which`.

    x and `which` are [n], y is FP32, n is [1] and INT64.
    """
    graph = _message(1, _node("Compress", ["x", "which"], "y")) + _message(1, _node("Shape", ["y"], "n"))
    graph += _text(2, "selecting")
    for field, name, element, axis in ((11, "x", "FP32", "n"), (11, "which", "BOOL", "n"), (12, "y", "FP32", "m")):
        tensor = _number(1, ELEMENTS[element]) + _message(2, _message(1, _text(2, axis)))
        graph += _message(field, _text(1, name) + _message(2, _message(1, tensor)))
    one = _number(1, ELEMENTS["INT64"]) + _message(2, _message(1, _number(1, 1)))
    return _model(graph + _message(12, _text(1, "n") + _message(2, _message(1, one))))


def _model(graph: bytes, note: str = "") -> bytes:
    opset = _text(1, "") + _number(2, OPSET)
    return (
        _number(1, IR_VERSION)
        + _text(2, "autoglm-edge-tests")
        + _text(6, note)
        + _message(7, graph)
        + _message(8, opset)
    )


def running_sum_model(width: int) -> bytes:
    """y = x + before, after = y, all [1, width]: a model that remembers the sum of what it was given."""
    graph = _message(1, _node("Add", ["x", "before"], "y")) + _message(1, _node("Identity", ["y"], "after"))
    graph += _text(2, "running-sum")
    graph += _message(11, _value("x", width)) + _message(11, _value("before", width))
    graph += _message(12, _value("y", width)) + _message(12, _value("after", width))
    opset = _text(1, "") + _number(2, OPSET)
    return _number(1, IR_VERSION) + _message(7, graph) + _message(8, opset)


def shaped_identity_model(shape: tuple[int, ...], element: int) -> bytes:
    """y = x, of this shape and element type."""
    sizes = b"".join(_message(1, _number(1, size)) for size in shape)
    kind = _message(2, _message(1, _number(1, element) + _message(2, sizes)))
    graph = _message(1, _node("Identity", ["x"], "y")) + _text(2, "identity")
    graph += _message(11, _text(1, "x") + kind) + _message(12, _text(1, "y") + kind)
    opset = _text(1, "") + _number(2, OPSET)
    return _number(1, IR_VERSION) + _message(7, graph) + _message(8, opset)


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    return b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(3, output) + _text(4, operator)


def _tensor(name: str, array: npt.NDArray[np.float32]) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    return dims + _number(2, FLOAT) + _text(8, name) + _message(9, np.ascontiguousarray(array, np.float32).tobytes())


def _value(name: str, width: int) -> bytes:
    shape = _message(1, _text(2, "N")) + _message(1, _number(1, width))
    return _text(1, name) + _message(2, _message(1, _number(1, FLOAT) + _message(2, shape)))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
