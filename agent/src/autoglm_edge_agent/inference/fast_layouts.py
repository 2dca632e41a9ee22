"""Where the tensors of a fast path's requests lie, in memory that the client shares.

The memory must be sealed against becoming smaller, so that no client can end the worker by it. Inputs are read where
they are; integers are copied first, as a runtime may look at an index twice.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.client.wire import ALIGNMENT, DIMENSION, aligned
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

LAYOUT_BYTES = 4 * LIMITS.request_body_bytes
"""The memory of one layout."""
_SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0)


class NoRoom(Exception):
    """The outputs need more memory than the client gave them."""

    def __init__(self, needed_bytes: int, given_bytes: int) -> None:
        super().__init__(f"the outputs have {needed_bytes} bytes, there is room for {given_bytes}")
        self.needed_bytes = needed_bytes


@dataclass
class Layout:
    """The memory of one request at a time."""

    memory: mmap.mmap
    inputs: list[tuple[Callable[[Array], Array], Array]]
    """How each input is taken, and from where."""
    outputs: memoryview
    shapes: list[tuple[int, ...]] | None = None
    """Of the outputs that the client was told last."""
    places: list[Array] = field(default_factory=list)
    """Where outputs of these shapes go."""

    def take(self) -> list[Array]:
        """Return the inputs, of the shapes that the client said."""
        return [take(place) for take, place in self.inputs]

    def put(self, outputs: Sequence[Array]) -> bytes:
        """Put the outputs in their place; return their shapes where the client does not know them. Raises NoRoom."""
        shapes = [output.shape for output in outputs]
        if shapes == self.shapes:
            for place, output in zip(self.places, outputs, strict=True):
                place[...] = output
            return b""
        need = 0
        for output in outputs:
            need = aligned(need) + output.nbytes
        if need > self.outputs.nbytes:
            raise NoRoom(need, self.outputs.nbytes)
        at = 0
        self.shapes, self.places = shapes, []
        for output in outputs:
            at = aligned(at)
            place = np.ndarray(output.shape, output.dtype, self.outputs, at) if output.nbytes else np.empty_like(output)
            place[...] = output
            self.places.append(place)
            at += output.nbytes
        return b"".join(map(_packed, shapes))


def read_layout(message: dict[str, Any], descriptor: int, specs: Sequence[TensorSpec]) -> Layout:
    """Return the layout that a client tells of, for a model with these inputs. Raises RequestError (400)."""
    size = whole(message.get("bytes"), "bytes")
    memory = _mapped(descriptor, size)
    wanted, places = message.get("inputs"), message.get("outputs")
    if not isinstance(wanted, list) or len(wanted) != len(specs) or not isinstance(places, dict):
        raise RequestError(400, f"a layout has 'inputs', a list of {len(specs)}, and 'outputs'")
    inputs = [(_way(spec), _input(memory, size, spec, item)) for spec, item in zip(specs, wanted, strict=True)]
    start, room = whole(places.get("offset"), "offset"), whole(places.get("bytes"), "bytes")
    if start % ALIGNMENT or start + room > size:
        raise RequestError(400, f"the outputs must begin at a multiple of {ALIGNMENT} inside the memory")
    return Layout(memory, inputs, memoryview(memory)[start : start + room])


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    try:
        if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS:
            raise RequestError(400, "the memory must be sealed against becoming smaller (F_SEAL_SHRINK)")
        if size < 1 or os.fstat(descriptor).st_size < size:
            raise RequestError(400, "the memory is smaller than the layout says")
        # All of it now: a page that cannot be had later would end the process.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    except (OSError, ValueError) as error:
        raise RequestError(400, f"the memory cannot be used: {error}") from None


def _input(memory: mmap.mmap, size: int, spec: TensorSpec, item: object) -> Array:
    shape = item.get("shape") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise RequestError(400, f"input {spec.name!r}: 'shape' must be a list of whole numbers")
    if len(shape) != len(spec.shape) or any(s not in (-1, n) for s, n in zip(spec.shape, shape, strict=True)):
        raise RequestError(400, f"input {spec.name!r}: shape {shape} does not fit {list(spec.shape)}")
    dtype, offset, count = np.dtype(DATATYPES[spec.datatype]), whole(item.get("offset"), "offset"), math.prod(shape)
    if offset % ALIGNMENT or offset + count * dtype.itemsize > size:
        raise RequestError(400, f"input {spec.name!r} must begin at a multiple of {ALIGNMENT} inside the memory")
    if count == 0:
        # The other dimensions may still be more than numpy can count.
        if math.prod(n for n in shape if n) > LAYOUT_BYTES:
            raise RequestError(400, f"input {spec.name!r}: shape {shape} is too large")
        return np.empty(shape, dtype)
    return np.frombuffer(memory, np.uint8 if dtype.kind == "b" else dtype, count, offset).reshape(shape)


def _way(spec: TensorSpec) -> Callable[[Array], Array]:
    """Return how to take an input from its place; what could be dangerous if it changed later, as a copy."""
    if spec.datatype == "BOOL":
        return _truth
    return np.copy if np.dtype(DATATYPES[spec.datatype]).kind in "iu" else _itself


def _truth(place: Array) -> Array:
    truth: Array = place != 0
    return truth


def _itself(place: Array) -> Array:
    return place


def whole(value: object, what: str) -> int:
    """Return a number of bytes that a client gave. Raises RequestError (400)."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise RequestError(400, f"'{what}' must be a whole number of bytes")
    return value


def _packed(shape: Sequence[int]) -> bytes:
    return bytes([len(shape)]) + b"".join(map(DIMENSION.pack, shape))
