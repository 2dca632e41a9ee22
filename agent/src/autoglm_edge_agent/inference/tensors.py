"""Tensors of the Open Inference Protocol v2 in JSON, to and from numpy.

Source: Open Inference Protocol (KServe), "Inference Request JSON Object" and "Tensor Data".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.raw_tensors import decode_raw
from autoglm_edge_agent.inference.shared_memory import SharedRegions
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

NOTHING = memoryview(b"")
_MOST_ELEMENTS = 2**40


def decode_inputs(
    request: dict[str, Any],
    specs: Sequence[TensorSpec],
    binary: memoryview = NOTHING,
    regions: SharedRegions | None = None,
    beside: Mapping[str, memoryview] = MappingProxyType({}),
) -> list[Array]:
    """Return the request's inputs in the order of `specs`, as arrays of the shapes that the request gives.

    `binary` is what follows the JSON; `regions` is where inputs in shared memory are; `beside` are the bytes of inputs
    that came by themselves.

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
    raw = {**beside, **_raw_data(inputs, binary, regions)}
    return [_decode(by_name[spec.name], spec, raw.get(spec.name)) for spec in specs]


def parameters_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output. Raises RequestError (400)."""
    parameters = item.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(400, "'parameters' must be an object")
    return parameters


def _raw_data(inputs: list[dict[str, Any]], binary: memoryview, regions: SharedRegions | None) -> dict[str, memoryview]:
    """Return the bytes of those inputs that are no JSON, by name. Raises RequestError (400)."""
    found: dict[str, memoryview] = {}
    at = shared = 0
    for item in inputs:
        name, parameters = item["name"], parameters_of(item)
        ways = [key for key in ("binary_data_size", "shared_memory_region") if key in parameters]
        if len(ways) + ("data" in item) > 1:
            raise RequestError(400, f"input {name!r}: its data is given in more than one way")
        if ways == ["binary_data_size"]:
            size = _bytes(parameters, "binary_data_size", name)
            if at + size > len(binary):
                raise RequestError(400, f"input {name!r}: {size} bytes are announced, {len(binary) - at} came")
            found[name] = binary[at : at + size]
            at += size
        elif ways:
            if regions is None:
                raise RequestError(400, "shared memory is not offered here")
            size, offset = (
                _bytes(parameters, "shared_memory_byte_size", name),
                parameters.get("shared_memory_offset", 0),
            )
            if type(offset) is not int:
                raise RequestError(400, f"input {name!r}: 'shared_memory_offset' must be a whole number")
            shared += size
            if shared > LIMITS.request_body_bytes:
                raise RequestError(413, f"the inputs together have at most {LIMITS.request_body_bytes} bytes")
            found[name] = regions.read(str(parameters["shared_memory_region"]), offset, size)
    if at != len(binary):
        raise RequestError(400, f"{len(binary) - at} bytes of binary data belong to no input")
    return found


def _bytes(parameters: dict[str, Any], key: str, name: str) -> int:
    size = parameters.get(key)
    if type(size) is not int or size < 0:
        raise RequestError(400, f"{name!r}: {key!r} must be a whole number of bytes")
    return size


def _decode(item: dict[str, Any], spec: TensorSpec, raw: memoryview | None) -> Array:
    shape = _shape(item, spec)
    if raw is not None:
        return decode_raw(raw, spec, shape)
    data = item.get("data")
    if spec.datatype == "FP16":
        raise RequestError(400, f"input {spec.name!r}: JSON carries no FP16, send binary data")
    if not isinstance(data, list):
        raise RequestError(400, f"input {spec.name!r}: 'data' must be a list")
    flat = _to_array(data, spec)
    if flat.size != math.prod(shape):
        raise RequestError(400, f"input {spec.name!r}: {flat.size} elements do not fill the shape {shape}")
    return flat.reshape(shape)


def _shape(item: dict[str, Any], spec: TensorSpec) -> list[int]:
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
        raise RequestError(400, f"output {spec.name!r}: JSON carries no FP16, ask for binary data")
    data = [_text(value) for value in array.ravel()] if array.dtype.kind in "OSU" else array.ravel().tolist()
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape), "data": data}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
