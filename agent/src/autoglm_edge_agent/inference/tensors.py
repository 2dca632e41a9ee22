"""Tensors of the Open Inference Protocol v2 in JSON, to and from numpy.

Source: Open Inference Protocol (KServe), "Inference Request JSON Object" and "Tensor Data".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.inference.backends import DATATYPES
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]


def decode_inputs(request: dict[str, Any], specs: Sequence[TensorSpec]) -> list[Array]:
    """Return the request's inputs in the order of `specs`, as arrays of the shapes that the request gives.

    Raises RequestError (400) for a missing, unknown or doubled input, another datatype, or a shape that does not fit.
    """
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
        raise RequestError(400, "the request has no list 'inputs' of objects")
    if not all(isinstance(item.get("name"), str) for item in inputs):
        raise RequestError(400, "an input has no 'name'")
    by_name = {item["name"]: item for item in inputs}
    known = {spec.name for spec in specs}
    if len(by_name) != len(inputs):
        raise RequestError(400, "an input is given twice")
    if unknown := [name for name in by_name if name not in known]:
        raise RequestError(400, f"the model has no input {unknown[0]!r}; it has {sorted(known)}")
    if missing := [spec.name for spec in specs if spec.name not in by_name]:
        raise RequestError(400, f"the input {missing[0]!r} is missing")
    return [_decode(by_name[spec.name], spec) for spec in specs]


def _decode(item: dict[str, Any], spec: TensorSpec) -> Array:
    shape, datatype = item.get("shape"), item.get("datatype")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise RequestError(400, f"input {spec.name!r}: 'shape' must be a list of whole numbers")
    if datatype != spec.datatype:
        raise RequestError(400, f"input {spec.name!r}: datatype is {datatype!r}, the model takes {spec.datatype}")
    if len(shape) != len(spec.shape) or any(s not in (-1, n) for s, n in zip(spec.shape, shape, strict=True)):
        raise RequestError(400, f"input {spec.name!r}: shape {shape} does not fit {list(spec.shape)}")
    data = item.get("data")
    if not isinstance(data, list):
        raise RequestError(400, f"input {spec.name!r}: 'data' must be a list")
    flat = _to_array(data, spec)
    if flat.size != math.prod(shape):
        raise RequestError(400, f"input {spec.name!r}: {flat.size} elements do not fill the shape {shape}")
    try:
        return flat.reshape(shape)
    except (ValueError, OverflowError):  # no elements, and so many in the other dimensions that numpy cannot count them
        raise RequestError(400, f"input {spec.name!r}: shape {shape} is too large") from None


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


def wanted_outputs(request: dict[str, Any], specs: Sequence[TensorSpec]) -> list[int]:
    """Return which outputs the request asks for, as positions in `specs`; all of them if it names none.

    Raises RequestError (400).
    """
    outputs = request.get("outputs")
    if outputs is None or outputs == []:
        return list(range(len(specs)))
    if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
        raise RequestError(400, "'outputs' must be a list of objects")
    positions = {spec.name: position for position, spec in enumerate(specs)}
    for item in outputs:
        if not isinstance(item.get("name"), str) or item["name"] not in positions:
            raise RequestError(400, f"the model has no output {item.get('name')!r}; it has {sorted(positions)}")
    wanted = [positions[item["name"]] for item in outputs]
    if len(set(wanted)) != len(wanted):  # a small request must not make a huge answer
        raise RequestError(400, "an output is asked for twice")
    return wanted


def encode_output(spec: TensorSpec, array: Array) -> dict[str, Any]:
    """Return an output as a JSON object. Raises RequestError (400) for a dtype that JSON cannot carry."""
    if array.dtype == np.float16:
        raise RequestError(400, f"output {spec.name!r}: JSON carries no FP16")
    data = [_text(value) for value in array.ravel()] if array.dtype.kind in "OSU" else array.ravel().tolist()
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape), "data": data}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
