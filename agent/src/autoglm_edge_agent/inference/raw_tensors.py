"""Tensors as bytes: little-endian, row by row, as binary data and shared memory carry them.

Source: Triton Inference Server, "Binary Tensor Data Extension".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

_LENGTH = struct.Struct("<I")
_LITTLE_ENDIAN = {name: np.dtype(kind).newbyteorder("<") for name, kind in DATATYPES.items()}


def decode_raw(raw: memoryview, spec: TensorSpec, shape: Sequence[int]) -> Array:
    """Return an array of bytes, without a copy where the bytes lie as the type needs it. Raises RequestError (400)."""
    elements = math.prod(shape)
    if spec.datatype == "BYTES":
        return _texts(raw, spec, elements).reshape(shape)
    dtype = _LITTLE_ENDIAN[spec.datatype]
    if raw.nbytes != elements * dtype.itemsize:
        text = f"{raw.nbytes} bytes do not fill the shape {list(shape)} of {spec.datatype}"
        raise RequestError(400, f"input {spec.name!r}: {text}, which takes {elements * dtype.itemsize}")
    if spec.datatype == "BOOL":
        # A byte that is neither 0 nor 1 is no value that a runtime knows.
        truth: Array = np.frombuffer(raw, np.uint8) != 0
        return truth.reshape(shape)
    array = np.frombuffer(raw, dtype)
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def encode_raw(array: Array) -> memoryview | bytes:
    """Return an array's bytes, without a copy where it lies in one piece."""
    if array.dtype.hasobject or array.dtype.kind in "SU":
        pieces: list[bytes] = []
        for value in array.ravel():
            data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
            pieces += (_LENGTH.pack(len(data)), data)
        return b"".join(pieces)
    if array.size == 0:
        return b""
    if not (array.flags.c_contiguous and array.dtype.str[0] in "<|"):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data


def _texts(raw: memoryview, spec: TensorSpec, elements: int) -> Array:
    found: list[str] = []
    at = 0
    while at < raw.nbytes and len(found) <= elements:
        if at + _LENGTH.size > raw.nbytes:
            raise RequestError(400, f"input {spec.name!r}: the length of element {len(found)} is cut off")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > raw.nbytes:
            raise RequestError(400, f"input {spec.name!r}: element {len(found)} is cut off")
        try:
            found.append(str(raw[at : at + length], "utf-8"))
        except UnicodeDecodeError:
            # ONNX Runtime would make text of it as Python prints bytes, and the model would see that.
            raise RequestError(400, f"input {spec.name!r}: element {len(found)} is not UTF-8") from None
        at += length
    if len(found) != elements:
        raise RequestError(400, f"input {spec.name!r}: the data does not hold {elements} elements")
    array = np.empty(elements, object)
    array[:] = found
    return array
