"""Inputs and outputs of an ONNX graph: names, dtypes and shapes as the manifest writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]
Feed = dict[str, Array]
"""One call's inputs by name, batch axis included."""

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
}


def numpy_name(datatype: str) -> str:
    """Return what numpy calls a datatype of the manifest. Raises StopIteration for an unknown one."""
    return next(name for name, known in _DATATYPES.items() if known == datatype)


@dataclass(frozen=True)
class Port:
    """An input or output. `shape` is None where the file does not tell the rank; a free axis in it is None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def spec(self) -> TensorSpec:
        """Return the manifest's form; free axes are -1."""
        shape = tuple(-1 if axis is None else axis for axis in self.shape or ())
        return TensorSpec(name=self.name, datatype=_DATATYPES.get(self.dtype, self.dtype.upper()), shape=shape)


def read_port(value: onnx.ValueInfoProto) -> Port:
    """Return name, numpy dtype and shape of a graph's input or output."""
    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name if tensor.elem_type else "unknown"
    if not tensor.HasField("shape"):
        return Port(value.name, dtype, None)
    axes = (axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None for axis in tensor.shape.dim)
    return Port(value.name, dtype, tuple(axes))


def input_ports(graph: onnx.GraphProto) -> tuple[Port, ...]:
    """Return what a caller must feed: the graph's inputs that have no initializer."""
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(read_port(value) for value in graph.input if value.name not in constants)


def output_ports(graph: onnx.GraphProto) -> tuple[Port, ...]:
    """Return what the graph answers."""
    return tuple(read_port(value) for value in graph.output)


def clear_of(outputs: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """Return output names none of which is an input's too: files name both in one space."""
    return [f"{name}_output" if name in set(inputs) else name for name in outputs]
