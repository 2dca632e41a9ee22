"""What a request for inference asks, understood from its JSON: which inputs lie where, which outputs are wanted, how.

Understanding looks at nothing but the JSON: a client that sends the same JSON again, with other numbers behind it, is
understood already.
Sources: Open Inference Protocol (KServe), "Inference Request JSON Object"; Triton Inference Server, the extensions
binary data, system shared memory and classification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.raw_tensors import decode_raw
from autoglm_edge_agent.inference.shared_memory import SharedRegions
from autoglm_edge_agent.inference.tensors import decode_data, read_shape
from autoglm_edge_agent.inference.terms import check_terms
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

NOTHING = memoryview(b"")


@dataclass(frozen=True)
class Behind:
    """An input behind the JSON, from one byte to another."""

    spec: TensorSpec
    shape: Sequence[int]
    start: int
    stop: int

    def read(self, binary: memoryview, _regions: SharedRegions | None) -> Array:
        """Return the input, of the shape that was given. Raises RequestError (400)."""
        return decode_raw(binary[self.start : self.stop], self.spec, self.shape)


@dataclass(frozen=True)
class Shared:
    """An input in shared memory."""

    spec: TensorSpec
    shape: Sequence[int]
    region: str
    offset: int
    size: int

    def read(self, _binary: memoryview, regions: SharedRegions | None) -> Array:
        """Return the input, of the shape that was given. Raises RequestError (400, 404)."""
        if regions is None:
            raise RequestError(400, "shared memory is not offered here")
        return decode_raw(regions.read(self.region, self.offset, self.size), self.spec, self.shape)


@dataclass(frozen=True)
class Told:
    """An input that the request itself tells."""

    array: Array

    def read(self, _binary: memoryview, _regions: SharedRegions | None) -> Array:
        """Return the input."""
        return self.array


@dataclass(frozen=True)
class Wanted:
    """An output that was asked for, and what was asked of it."""

    position: int
    """Among the model's outputs."""
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request."""

    inputs: Sequence[Behind | Shared | Told]
    """In the order of the model's."""
    outputs: Sequence[Wanted]
    binary_bytes: int
    """How many bytes have to follow the JSON."""
    id: str | None
    priority: int
    timeout_us: int
    binary_outputs: bool
    """Outputs of which nothing else is said go behind the JSON of the answer."""

    @property
    def repeatable(self) -> bool:
        """Whether nothing in it changes with the numbers: they lie behind its JSON, and the answer's."""
        return all(isinstance(each, Behind) for each in self.inputs) and all(map(self.goes_behind, self.outputs))

    def goes_behind(self, wanted: Wanted) -> bool:
        """Tell whether an output goes behind the JSON of the answer."""
        if "shared_memory_region" in wanted.parameters:
            return False
        return wanted.parameters.get("binary_data", self.binary_outputs) is True

    def read(self, binary: memoryview = NOTHING, regions: SharedRegions | None = None) -> list[Array]:
        """Return the inputs: from what follows the JSON, and from shared memory. Raises RequestError (400, 404)."""
        if len(binary) < self.binary_bytes:
            raise RequestError(400, f"{self.binary_bytes} bytes of binary data are announced, {len(binary)} came")
        if len(binary) > self.binary_bytes:
            raise RequestError(400, f"{len(binary) - self.binary_bytes} bytes of binary data belong to no input")
        return [each.read(binary, regions) for each in self.inputs]


def understand(
    request: dict[str, Any],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    beside: Mapping[str, memoryview] = MappingProxyType({}),
) -> Asked:
    """Return what a request asks of a model with these inputs and outputs.

    `beside` are the bytes of inputs that came by themselves, by name.

    Raises RequestError: 400 for a missing, unknown or doubled tensor, another datatype, a shape that does not fit, or
    values that the datatype does not have; 413 for too much shared memory.
    """
    if "id" in request and not isinstance(request["id"], str):
        raise RequestError(400, "'id' must be a string")
    parameters = parameters_of(request)
    priority, timeout_us = check_terms(parameters)
    by_name = _inputs_by_name(request, [spec.name for spec in inputs])
    places, binary_bytes = _places(by_name)
    return Asked(
        tuple(_input(by_name[spec.name], spec, places.get(spec.name), beside.get(spec.name)) for spec in inputs),
        _wanted(request, outputs),
        binary_bytes,
        request.get("id"),
        priority,
        timeout_us,
        parameters.get("binary_data_output") is True,
    )


def parameters_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output. Raises RequestError (400)."""
    parameters = item.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(400, "'parameters' must be an object")
    return parameters


def _inputs_by_name(request: dict[str, Any], known: Sequence[str]) -> dict[str, dict[str, Any]]:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
        raise RequestError(400, "the request has no list 'inputs' of objects")
    if not all(isinstance(item.get("name"), str) for item in inputs):
        raise RequestError(400, "an input has no 'name'")
    by_name = {item["name"]: item for item in inputs}
    if len(by_name) != len(inputs):
        raise RequestError(400, "an input is given twice")
    if unknown := [name for name in by_name if name not in known]:
        raise RequestError(400, f"the model has no input {unknown[0]!r}; it has {sorted(known)}")
    if missing := [name for name in known if name not in by_name]:
        raise RequestError(400, f"the input {missing[0]!r} is missing")
    return by_name


def _places(by_name: Mapping[str, dict[str, Any]]) -> tuple[dict[str, slice | tuple[str, int, int]], int]:
    """Return where inputs lie that are no JSON, by name, and how many bytes follow the JSON. In the request's order."""
    found: dict[str, slice | tuple[str, int, int]] = {}
    at = shared = 0
    for name, item in by_name.items():
        parameters = parameters_of(item)
        ways = [key for key in ("binary_data_size", "shared_memory_region") if key in parameters]
        if len(ways) + ("data" in item) > 1:
            raise RequestError(400, f"input {name!r}: its data is given in more than one way")
        if ways == ["binary_data_size"]:
            size = _bytes(parameters, "binary_data_size", name)
            found[name] = slice(at, at + size)
            at += size
        elif ways:
            size = _bytes(parameters, "shared_memory_byte_size", name)
            offset = parameters.get("shared_memory_offset", 0)
            if type(offset) is not int:
                raise RequestError(400, f"input {name!r}: 'shared_memory_offset' must be a whole number")
            shared += size
            if shared > LIMITS.request_body_bytes:
                raise RequestError(413, f"the inputs together have at most {LIMITS.request_body_bytes} bytes")
            found[name] = str(parameters["shared_memory_region"]), offset, size
    return found, at


def _bytes(parameters: dict[str, Any], key: str, name: str) -> int:
    size = parameters.get(key)
    if type(size) is not int or size < 0:
        raise RequestError(400, f"{name!r}: {key!r} must be a whole number of bytes")
    return size


def _input(
    item: dict[str, Any], spec: TensorSpec, place: slice | tuple[str, int, int] | None, beside: memoryview | None
) -> Behind | Shared | Told:
    shape = read_shape(item, spec)
    if isinstance(place, slice):
        return Behind(spec, shape, place.start, place.stop)
    if place is not None:
        return Shared(spec, shape, *place)
    if beside is not None:
        return Told(decode_raw(beside, spec, shape))
    return Told(decode_data(item, spec, shape))


def _wanted(request: dict[str, Any], specs: Sequence[TensorSpec]) -> tuple[Wanted, ...]:
    outputs = request.get("outputs")
    if outputs is None or outputs == []:
        return tuple(Wanted(position, {}) for position in range(len(specs)))
    if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
        raise RequestError(400, "'outputs' must be a list of objects")
    positions = {spec.name: position for position, spec in enumerate(specs)}
    for item in outputs:
        if not isinstance(item.get("name"), str) or item["name"] not in positions:
            raise RequestError(400, f"the model has no output {item.get('name')!r}; it has {sorted(positions)}")
        if "classification" in parameters_of(item):
            raise RequestError(400, "the classification extension is not offered here: ask for the tensor")
    if len({item["name"] for item in outputs}) != len(outputs):  # a small request must not make a huge answer
        raise RequestError(400, "an output is asked for twice")
    return tuple(Wanted(positions[item["name"]], parameters_of(item)) for item in outputs)
