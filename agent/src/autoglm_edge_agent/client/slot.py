"""Memory for the tensors of one request at a time, which the worker reads and writes in place."""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import TensorInfo
from autoglm_edge_agent.client.wire import DIMENSION, aligned

Array = npt.NDArray[Any]


class Asker(Protocol):
    """The connection through which a slot is asked."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def ask(self, slot: Slot, priority: int, timeout_s: float | None) -> bytes:
        """Ask and return what follows the head of the answer. Raises InferenceRefused, ConnectionError."""

    def forget(self, slot: Slot) -> None:
        """Tell that a slot is closed."""


class Slot:
    """Memory for the inputs and outputs of one request at a time.

    `inputs` and `outputs` are arrays by name in the shared memory. Those of `outputs` are valid until the next run.
    """

    def __init__(
        self, client: Asker, number: int, shapes: dict[str, tuple[int, ...]], output_bytes: int | None
    ) -> None:
        self._client = client
        self.model_inputs = client.inputs
        """Of the model that it was made for: another one may be served by now."""
        self.number = number
        self.shapes = shapes
        self.known_to = -1
        """The connection that knows of it."""
        self.descriptor = -1
        self._memory: mmap.mmap | None = None
        self.inputs: dict[str, Array] = {}
        self.outputs: dict[str, Array] = {}
        self.output_bytes = output_bytes or self._estimate()
        self._map()

    def run(self, *, priority: int = 0, timeout_s: float | None = None) -> None:
        """Run the model on what `inputs` hold.

        Args:
            priority: 1 is the most urgent, 3 the least; 0 is the default, 2.
            timeout_s: after this the answer is of no use, and the model need not run.

        Raises InferenceRefused, TimeoutError, ConnectionError.
        """
        if self._memory is None:
            raise ValueError("the slot is closed")
        if not 0 <= priority <= 255:
            raise ValueError(f"priority {priority}: 1 is the most urgent, 3 the least, 0 the default")
        shapes = self._client.ask(self, priority, timeout_s)
        if shapes or not self.outputs:
            self.outputs = self._placed(shapes)

    def enlarge(self, output_bytes: int) -> None:
        """Make the memory larger for the outputs. Arrays of the inputs that the caller holds stay what they are."""
        os.ftruncate(self.descriptor, self._offsets[-1] + output_bytes)
        self.output_bytes = output_bytes
        self._memory = mmap.mmap(self.descriptor, self._bytes)  # those arrays keep the memory as it was mapped before
        self.outputs = {}
        self.known_to = -1

    def described(self) -> dict[str, Any]:
        """Return what the worker has to know."""
        inputs = [
            {"offset": offset, "shape": list(self.shapes[info.name])}
            for info, offset in zip(self.model_inputs, self._offsets[:-1], strict=True)
        ]
        return {
            "op": "layout",
            "layout": self.number,
            "bytes": self._bytes,
            "inputs": inputs,
            "outputs": {"offset": self._offsets[-1], "bytes": self.output_bytes},
        }

    def close(self) -> None:
        """Give the memory back."""
        if self._memory is not None:
            self._client.forget(self)
            self._unmap()

    @property
    def _offsets(self) -> list[int]:
        """Where the inputs begin, and where the outputs do."""
        offsets = [0]
        for info in self.model_inputs:
            offsets.append(aligned(offsets[-1] + math.prod(self.shapes[info.name]) * info.dtype.itemsize))
        return offsets

    @property
    def _bytes(self) -> int:
        return max(1, self._offsets[-1] + self.output_bytes)

    def _estimate(self) -> int:
        """Free dimensions of outputs are most often those of the inputs: as many rows, as wide a picture."""
        largest = max((n for shape in self.shapes.values() for n in shape), default=1)
        rows = max((shape[0] for shape in self.shapes.values() if shape), default=1)
        room = 0
        for info in self._client.outputs:
            dimensions = [n if n >= 0 else rows if at == 0 else largest for at, n in enumerate(info.shape)]
            room += aligned(math.prod(dimensions) * info.dtype.itemsize)
        return min(max(room, 64), 1 << 24)

    def _map(self) -> None:
        self.descriptor = os.memfd_create("autoglm-edge-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, self._bytes)
            # The worker takes no memory that could become smaller while it is read.
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(self.descriptor, self._bytes)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.inputs = {
            info.name: self._array(info, offset, self.shapes[info.name])
            for info, offset in zip(self.model_inputs, self._offsets[:-1], strict=True)
        }

    def _unmap(self) -> None:
        self.inputs, self.outputs = {}, {}
        os.close(self.descriptor)
        memory, self._memory = self._memory, None
        if memory is not None:
            with contextlib.suppress(BufferError):  # arrays that the caller still holds keep the memory
                memory.close()

    def _array(self, info: TensorInfo, offset: int, shape: Sequence[int]) -> Array:
        assert self._memory is not None
        count = math.prod(shape)
        if count == 0:
            return np.empty(shape, info.dtype)
        return np.frombuffer(self._memory, info.dtype, count, offset).reshape(shape)

    def _placed(self, shapes: bytes) -> dict[str, Array]:
        """Return the outputs, which lie one after the other."""
        found: dict[str, Array] = {}
        offset, at = self._offsets[-1], 0
        for info in self._client.outputs:
            count = shapes[at]
            at += 1
            shape = [DIMENSION.unpack_from(shapes, at + DIMENSION.size * n)[0] for n in range(count)]
            at += DIMENSION.size * count
            found[info.name] = self._array(info, offset, shape)
            offset = aligned(offset + math.prod(shape) * info.dtype.itemsize)
        return found
