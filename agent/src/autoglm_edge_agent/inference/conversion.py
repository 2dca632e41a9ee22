"""Between the tensors that applications see and those of a variant's file: order of axes, datatype, quantization.

Only what the manifest declares is converted, once each way, around the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.backends import Session
from autoglm_edge_protocol.manifest import Stored, TensorSpec

Array = npt.NDArray[Any]


def quantized(array: Array, scale: float, zero_point: int, dtype: npt.DTypeLike) -> Array:
    """Return the whole numbers that stand for real ones: rounded half to even, saturated; for NaN zero."""
    ends = np.iinfo(np.dtype(dtype))
    whole = np.rint(array / np.float32(scale)) + zero_point
    found: Array = np.nan_to_num(np.clip(whole, ends.min, ends.max), nan=zero_point).astype(dtype)
    return found


def dequantized(array: Array, scale: float, zero_point: int, dtype: npt.DTypeLike) -> Array:
    """Return the real numbers that whole ones stand for."""
    real = (array.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    found: Array = real.astype(dtype, copy=False)
    return found


def in_file(spec: TensorSpec) -> TensorSpec:
    """Return the tensor as the file has it."""
    stored = spec.stored
    if stored is None:
        return spec
    shape = tuple(spec.shape[axis] for axis in stored.axes) or spec.shape
    return TensorSpec(name=spec.name, datatype=stored.datatype or spec.datatype, shape=shape)


class Converted:
    """A session in the terms of the applications, around one in those of the file."""

    def __init__(self, session: Session, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._session = session
        self._inputs = [(spec.stored, _dtype(in_file(spec))) for spec in inputs]
        self._outputs = [(spec.stored, _dtype(spec)) for spec in outputs]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """See `Session.run`."""
        given = [_to_file(array, *how) for array, how in zip(inputs, self._inputs, strict=True)]
        answers = self._session.run(given)
        return [_from_file(array, *how) for array, how in zip(answers, self._outputs, strict=True)]

    def reset(self) -> None:
        """See `Session.reset`."""
        self._session.reset()

    def placement(self) -> Mapping[str, int]:
        """See `Session.placement`."""
        return self._session.placement()


def _dtype(spec: TensorSpec) -> type[np.generic] | None:
    return DATATYPES.get(spec.datatype)


def _to_file(array: Array, stored: Stored | None, dtype: type[np.generic] | None) -> Array:
    if stored is None or dtype is None:
        return array
    if stored.axes:
        array = array.transpose(stored.axes)
    if stored.scale is not None and array.dtype.kind == "f":
        return np.ascontiguousarray(quantized(array, stored.scale, stored.zero_point, dtype))
    return np.ascontiguousarray(array, dtype=dtype)


def _from_file(array: Array, stored: Stored | None, dtype: type[np.generic] | None) -> Array:
    if stored is None or dtype is None:
        return array
    if stored.scale is not None and array.dtype.kind in "iu":
        array = dequantized(array, stored.scale, stored.zero_point, dtype)
    if stored.axes:
        array = array.transpose(np.argsort(stored.axes))
    return np.ascontiguousarray(array, dtype=dtype)
