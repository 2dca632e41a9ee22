"""The tables of a TFLite file as LiteRT's own bindings give them; untyped, so nothing else touches them unguarded.

Source: `tflite/converter/schema/schema.fbs` of LiteRT. `Model` reads in place; `ModelT` and its like can be changed.
"""

from __future__ import annotations

from typing import Any

from autoglm_edge_converter.errors import MissingPackage

try:
    from ai_edge_litert import schema_py_generated
except ModuleNotFoundError as error:
    raise MissingPackage("TFLite files", "tflite", error.name or "ai_edge_litert") from None

IDENTIFIER = b"TFL3"
VERSION = 3
CUSTOM = "CUSTOM"

tables: Any = schema_py_generated
"""The bindings."""

Table = Any
"""A table of the schema: a foreign object without types."""


def _names(kind: Any) -> dict[int, str]:
    return {value: name for name, value in vars(kind).items() if isinstance(value, int)}


OPERATORS = _names(tables.BuiltinOperator)
"""`CONV_2D` and its like by number."""

DTYPES = {
    tables.TensorType.FLOAT32: "float32",
    tables.TensorType.FLOAT16: "float16",
    tables.TensorType.FLOAT64: "float64",
    tables.TensorType.INT8: "int8",
    tables.TensorType.INT16: "int16",
    tables.TensorType.INT32: "int32",
    tables.TensorType.INT64: "int64",
    tables.TensorType.UINT8: "uint8",
    tables.TensorType.UINT16: "uint16",
    tables.TensorType.UINT32: "uint32",
    tables.TensorType.UINT64: "uint64",
    tables.TensorType.BOOL: "bool",
    tables.TensorType.COMPLEX64: "complex64",
    tables.TensorType.COMPLEX128: "complex128",
    tables.TensorType.STRING: "object",
}
"""numpy's names by number; those that numpy does not know are given as the schema calls them, in small letters."""


def dtype_name(number: int) -> str:
    """Return numpy's name of a tensor type. Raises ValueError for a number that the schema does not have."""
    if number in DTYPES:
        return DTYPES[number]
    name = _names(tables.TensorType).get(number)
    if name is None:
        raise ValueError(f"tensor type {number} is not in the schema")
    return name.lower()
