"""Where the tensors of a fast path's requests lie, in memory that the client shares.

The memory must be sealed against becoming smaller, so that no client can end the worker by it. Inputs are read where
they are, and outputs written where they go; integers are copied, as a runtime may look at an index twice.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.client.wire import ALIGNMENT, DIMENSION, aligned
from autoglm_edge_agent.inference.backends import Bound
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


Bind = Callable[[Sequence[Array], list[Array]], Bound | None]
"""Binds the model to memory: (inputs, outputs)."""


class Layout:
    """The memory of one request at a time.

    Args:
        memory: all of it.
        places: where each input lies in it.
        dtypes: what the model takes them as.
        outputs: the part for the outputs.
    """

    def __init__(
        self, memory: mmap.mmap, places: Sequence[Array], dtypes: Sequence[np.dtype[Any]], outputs: memoryview
    ) -> None:
        self.memory = memory
        self.bound: Bound | None = None
        """The model with this memory, once its answers have their places."""
        self._inputs = [_own(place, dtype) for place, dtype in zip(places, dtypes, strict=True)]
        self._copies = [pair for pair in zip(self._inputs, places, strict=True) if pair[0] is not pair[1]]
        self._outputs = outputs
        self._answers: list[tuple[Array, Array]] = []
        """Where each output goes, and where the bound model leaves it."""
        self._shapes: list[tuple[int, ...]] | None = None
        """Of the outputs that the client was told last."""
        self._was_bound = False
        self._bound_outputs: list[Array] | None = None
        self._apart: list[tuple[Array, Array]] = []
        """Of the bound outputs those that are copied to their places."""

    def take(self) -> list[Array]:
        """Return the inputs, of the shapes that the client said. The same arrays each time."""
        for own, place in self._copies:
            np.copyto(own, place, casting="unsafe")
        return self._inputs

    def put(self, outputs: Sequence[Array]) -> bytes:
        """Put the outputs in their place; return their shapes where the client does not know them. Raises NoRoom."""
        if outputs is self._bound_outputs:
            for place, own in self._apart:
                place[...] = own
            return b""
        shapes = [output.shape for output in outputs]
        if shapes == self._shapes:
            for (place, _), output in zip(self._answers, outputs, strict=True):
                if output is not place:
                    place[...] = output
            return b""
        need = 0
        for output in outputs:
            need = aligned(need) + output.nbytes
        if need > self._outputs.nbytes:
            raise NoRoom(need, self._outputs.nbytes)
        at = 0
        # Bound outputs would be of shapes that the client does not have any more.
        self.bound = self._bound_outputs = None
        self._shapes, self._answers = shapes, []
        for output in outputs:
            at = aligned(at)
            place = (
                np.ndarray(output.shape, output.dtype, self._outputs, at) if output.nbytes else np.empty_like(output)
            )
            place[...] = output
            self._answers.append((place, _own(place, output.dtype)))
            at += output.nbytes
        return b"".join(map(_packed, shapes))

    def bind(self, bind: Bind) -> None:
        """Let the model read and write where the tensors are from now on.

        Once: where shapes have changed, they will again.
        """
        if self._was_bound:
            return
        self._was_bound = True
        self._bound_outputs = [own for _, own in self._answers]
        self._apart = [pair for pair in self._answers if pair[0] is not pair[1]]
        self.bound = bind(self._inputs, self._bound_outputs)


def _own(place: Array, dtype: np.dtype[Any]) -> Array:
    """Return where a tensor is that lies in the client's memory: there, or in ours what it could harm us by."""
    return place if dtype.kind in "fc" else np.empty(place.shape, dtype)


def read_layout(message: dict[str, Any], size: int, descriptor: int, specs: Sequence[TensorSpec]) -> Layout:
    """Return the layout of so many bytes that a client tells of, for a model with these inputs.

    Raises RequestError (400).
    """
    memory = _mapped(descriptor, size)
    wanted, places = message.get("inputs"), message.get("outputs")
    if not isinstance(wanted, list) or len(wanted) != len(specs) or not isinstance(places, dict):
        raise RequestError(400, f"a layout has 'inputs', a list of {len(specs)}, and 'outputs'")
    inputs = [_input(memory, size, spec, item) for spec, item in zip(specs, wanted, strict=True)]
    start, room = whole(places.get("offset"), "offset"), whole(places.get("bytes"), "bytes")
    if start % ALIGNMENT or start + room > size:
        raise RequestError(400, f"the outputs must begin at a multiple of {ALIGNMENT} inside the memory")
    dtypes = [np.dtype(DATATYPES[spec.datatype]) for spec in specs]
    return Layout(memory, inputs, dtypes, memoryview(memory)[start : start + room])


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


def whole(value: object, what: str) -> int:
    """Return a number of bytes that a client gave. Raises RequestError (400)."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise RequestError(400, f"'{what}' must be a whole number of bytes")
    return value


def _packed(shape: Sequence[int]) -> bytes:
    return bytes([len(shape)]) + b"".join(map(DIMENSION.pack, shape))
