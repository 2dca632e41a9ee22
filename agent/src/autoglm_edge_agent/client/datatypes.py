"""What the datatypes of the Open Inference Protocol are in memory, for the client and for the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

DATATYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
"""Names of the Open Inference Protocol and what they are in memory; BYTES (text) is an array of Python objects."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the model; -1 in the shape where a dimension is free."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of its elements."""
        found: np.dtype[Any] = np.dtype(DATATYPES[self.datatype])
        return found
