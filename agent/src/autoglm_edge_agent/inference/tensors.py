"""Tensors of the Open Inference Protocol v2 in JSON, to and from numpy.

Source: Open Inference Protocol (KServe), "Inference Request JSON Object" and "Tensor Data".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

_MOST_ELEMENTS = 2**40


def decode_data(item: dict[str, Any], spec: TensorSpec, shape: Sequence[int]) -> Array:
    """Return an input of this shape from its list `data`. Raises RequestError (400)."""
    data = item.get("data")
    if spec.datatype == "FP16":
        raise RequestError(400, f"input {spec.name!r}: JSON carries no FP16, send binary data")
    if not isinstance(data, list):
        raise RequestError(400, f"input {spec.name!r}: 'data' must be a list")
    flat = _to_array(data, spec)
    if flat.size != math.prod(shape):
        raise RequestError(400, f"input {spec.name!r}: {flat.size} elements do not fill the shape {shape}")
    return flat.reshape(shape)


def read_shape(item: dict[str, Any], spec: TensorSpec) -> list[int]:
    """Return the shape that a request gives an input. Raises RequestError (400): also for another datatype."""
    shape, datatype = item.get("shape"), item.get("datatype")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise RequestError(400, f"input {spec.name!r}: 'shape' must be a list of whole numbers")
    if datatype != spec.datatype:
        raise RequestError(400, f"input {spec.name!r}: datatype is {datatype!r}, the model takes {spec.datatype}")
    if len(shape) != len(spec.shape) or any(s not in (-1, n) for s, n in zip(spec.shape, shape, strict=True)):
        raise RequestError(400, f"input {spec.name!r}: shape {shape} does not fit {list(spec.shape)}")
    # With no elements at all the other dimensions may still be more than numpy can count.
    if math.prod(n for n in shape if n) > _MOST_ELEMENTS:
        raise RequestError(400, f"input {spec.name!r}: shape {shape} is too large")
    return shape


def _to_array(data: list[Any], spec: TensorSpec) -> Array:
    try:
        if spec.datatype == "BYTES":
            return _to_strings(data)
        raw = _numbers(data)
        if raw.size == 0:
            return np.empty(0, DATATYPES[spec.datatype])
        if raw.dtype == object or raw.dtype.kind not in "buif":
            raise ValueError("not all elements are numbers, or rows differ in length")
        wanted = np.dtype(DATATYPES[spec.datatype])
        if wanted.kind in "iu" and raw.dtype.kind == "f":
            raise ValueError(f"{spec.datatype} takes whole numbers")
        if wanted.kind in "iu" and not (np.iinfo(wanted).min <= raw.min() and raw.max() <= np.iinfo(wanted).max):
            raise ValueError(f"an element is outside the range of {spec.datatype}")
        if wanted.kind == "b" and raw.dtype.kind != "b":
            raise ValueError("BOOL takes true and false")
        with np.errstate(over="ignore"):
            return raw.astype(wanted).ravel()
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(400, f"input {spec.name!r}: {error}") from None


def _numbers(data: list[Any]) -> Array:
    raw = np.asarray(data)
    if raw.dtype.kind == "f" and not np.abs(raw).max(initial=0.0) < 2.0**53:
        # Whole numbers of which some need 64 bits without a sign and some don't: numpy makes them inexact.
        exact = np.array(data, dtype=object).ravel()
        if all(type(value) is int and 0 <= value < 2**64 for value in exact):
            return exact.astype(np.uint64)
    return raw


def _to_strings(data: list[Any]) -> Array:
    flat = np.array(data, dtype=object).ravel()
    if not all(isinstance(value, str) for value in flat):
        raise ValueError("elements of BYTES are strings in JSON")
    return flat


def encode_output(spec: TensorSpec, array: Array) -> dict[str, Any]:
    """Return an output as an object for `json_response`. Raises RequestError for what JSON cannot carry: 400, 500."""
    if array.dtype == np.float16:
        raise RequestError(400, f"output {spec.name!r}: JSON carries no FP16, ask for binary data")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(500, "the result holds NaN or infinity, which JSON cannot carry: ask for binary data")
    if array.dtype.kind in "OSU":
        data: object = [_text(value) for value in array.ravel()]
    else:
        data = np.ascontiguousarray(array.reshape(-1), array.dtype.newbyteorder("="))
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape), "data": data}


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).encode("utf-8", "replace").decode("utf-8")
