"""Reading TFLite files that may be damaged or made to harm: what is in them, checked before anything else is done.

The format is read in place by offsets, which may point anywhere. Every index is checked, and a file whose tables are
shared so often that reading them takes more than its own size is refused. Nothing is run here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoglm_edge_converter.errors import NotAModel
from autoglm_edge_converter.tensors import Port
from autoglm_edge_converter.tflite import schema
from autoglm_edge_converter.tflite.schema import CUSTOM, IDENTIFIER, OPERATORS, Table, dtype_name

MOST_SHARED = 16
"""How many times its own size a file may unpack to, names and lists counted as they are read."""

DAMAGE = (struct.error, ValueError, IndexError, TypeError, OverflowError, AttributeError, KeyError, RecursionError)
"""What the bindings raise on offsets that lead nowhere."""


@dataclass(frozen=True)
class Quantization:
    """How the integers of a tensor stand for real numbers: `(integer - zero_point) * scale`, one per channel or one."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph. A free axis in `shape` is None; `constant_bytes` is 0 where the file gives no value."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    quantization: Quantization | None
    constant_bytes: int
    variable: bool

    @property
    def port(self) -> Port:
        """As an input or output."""
        return Port(self.name, self.dtype, self.shape)


@dataclass(frozen=True)
class OperatorCode:
    """An operator that a runtime must have: builtin ones by the schema's name, custom ones by their own."""

    kind: str
    version: int
    custom: bool


@dataclass(frozen=True)
class Operation(OperatorCode):
    """An operator in use."""

    inputs: tuple[int, ...]
    """Indices of the subgraph's tensors; -1 where an optional one is left out."""
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Subgraph:
    """A graph of a file; the first is the one that is run, others are called from it."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Signature:
    """Names of a subgraph's inputs and outputs, and their tensors, in the order of the file."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class TfliteModel:
    """What a file holds."""

    codes: tuple[OperatorCode, ...]
    """What a runtime looks up when it loads the file, in use or not."""
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    weights_bytes: int
    """Of all constants."""

    @property
    def main(self) -> Subgraph:
        """The subgraph that is run."""
        return self.subgraphs[0]

    @cached_property
    def inputs(self) -> tuple[Port, ...]:
        """What a caller feeds, in the order of the graph, named by the signature where there is one."""
        return self._ports(self.main.inputs, [entry for found in self._own() for entry in found.inputs])

    @cached_property
    def outputs(self) -> tuple[Port, ...]:
        """What the graph answers, named likewise."""
        return self._ports(self.main.outputs, [entry for found in self._own() for entry in found.outputs])

    def operations(self) -> Iterator[Operation]:
        """Give the operators of every subgraph."""
        for graph in self.subgraphs:
            yield from graph.operations

    def _own(self) -> list[Signature]:
        return [entry for entry in self.signatures if entry.subgraph == 0][:1]

    def _ports(self, indices: tuple[int, ...], named: list[tuple[str, int]]) -> tuple[Port, ...]:
        left = list(named)
        ports = []
        for index in indices:
            port = self.main.tensors[index].port
            entry = next((entry for entry in left if entry[1] == index), None)
            if entry is not None:
                left.remove(entry)
                port = Port(entry[0], port.dtype, port.shape)
            ports.append(port)
        return tuple(ports)


def read_model(data: bytes, name: str = "the file") -> TfliteModel:
    """Read a TFLite file. Raises NotAModel, with `name` in its line."""
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise NotAModel(f"{name} is no TFLite model: export it with TensorFlow's or LiteRT's converter")
    try:
        return _Reader(data).model()
    except _Refused as refusal:
        raise NotAModel(f"{name} is a damaged TFLite model ({refusal}): export or copy it again") from None
    except DAMAGE:
        raise NotAModel(f"{name} is a damaged TFLite model, or is cut short: export or copy it again") from None


class _Refused(Exception):
    """Says what is wrong with the file."""


class _Reader:
    """One pass over a file; counts what it reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = MOST_SHARED * len(data)
        self._root: Table = schema.tables.Model.GetRootAs(data, 0)
        self._codes: tuple[OperatorCode, ...] = ()
        self._buffers: list[int] = []

    def model(self) -> TfliteModel:
        root = self._root
        if root.Version() != schema.VERSION:
            raise _Refused(f"schema version {root.Version()} instead of {schema.VERSION}")
        self._codes = tuple(self._code(entry) for entry in self._each(root.OperatorCodesLength(), root.OperatorCodes))
        self._buffers = [self._size(entry) for entry in self._each(root.BuffersLength(), root.Buffers)]
        graphs = tuple(self._subgraph(entry) for entry in self._each(root.SubgraphsLength(), root.Subgraphs))
        if not graphs:
            raise _Refused("it has no graph")
        if not graphs[0].outputs:
            raise _Refused("it has no output")
        signatures = self._each(root.SignatureDefsLength(), root.SignatureDefs)
        named = tuple(self._signature(entry, graphs) for entry in signatures)
        return TfliteModel(self._codes, graphs, named, sum(self._buffers))

    def _spend(self, count: int) -> None:
        self._budget -= max(0, count) + 1
        if self._budget < 0:
            raise _Refused("its tables refer to one another over and over")

    def _each(self, count: int, get: Callable[[int], Table]) -> Iterator[Table]:
        for index in range(count):
            self._spend(1)
            entry = get(index)
            if entry is None:
                raise _Refused("a table is missing")
            yield entry

    def _text(self, value: bytes | None) -> str:
        self._spend(len(value or b""))
        return (value or b"").decode(errors="replace")

    def _numbers(self, values: Table) -> tuple[int, ...]:
        # The bindings answer 0 for a list that is not there.
        found = np.atleast_1d(values) if isinstance(values, np.ndarray) else np.empty(0, np.int64)
        self._spend(found.size)
        return tuple(int(value) for value in found)

    def _code(self, entry: Table) -> OperatorCode:
        number = max(entry.BuiltinCode(), entry.DeprecatedBuiltinCode())
        kind = OPERATORS.get(number)
        custom = kind == CUSTOM
        name = self._text(entry.CustomCode()) if custom else kind
        if kind is None:
            name = f"BUILTIN_{number}"
        return OperatorCode(name or CUSTOM, int(entry.Version()), custom)

    def _size(self, entry: Table) -> int:
        offset, size = int(entry.Offset()), int(entry.Size())
        if offset > 1:
            if offset + size > len(self._data):
                raise _Refused("its weights are cut short")
            return size
        length = int(entry.DataLength())
        if length > len(self._data):
            raise _Refused("its weights are cut short")
        self._spend(length)
        return length

    def _subgraph(self, entry: Table) -> Subgraph:
        tensors = tuple(self._tensor(item) for item in self._each(entry.TensorsLength(), entry.Tensors))
        operators = self._each(entry.OperatorsLength(), entry.Operators)
        operations = tuple(self._operation(item, len(tensors)) for item in operators)
        inputs = self._indices(entry.InputsAsNumpy(), 0, len(tensors))
        outputs = self._indices(entry.OutputsAsNumpy(), 0, len(tensors))
        return Subgraph(tensors, inputs, outputs, operations)

    def _indices(self, values: Table, least: int, count: int) -> tuple[int, ...]:
        found = self._numbers(values)
        if any(not least <= index < count for index in found):
            raise _Refused("a tensor that is not there is referred to")
        return found

    def _operation(self, entry: Table, tensors: int) -> Operation:
        index = int(entry.OpcodeIndex())
        if index >= len(self._codes):
            raise _Refused("an operator that is not there is referred to")
        code = self._codes[index]
        inputs = self._indices(entry.InputsAsNumpy(), -1, tensors)
        outputs = self._indices(entry.OutputsAsNumpy(), -1, tensors)
        return Operation(code.kind, code.version, code.custom, inputs, outputs)

    def _tensor(self, entry: Table) -> Tensor:
        name = self._text(entry.Name())
        buffer = int(entry.Buffer())
        if buffer >= len(self._buffers):
            raise _Refused("weights that are not there are referred to")
        signature = self._numbers(entry.ShapeSignatureAsNumpy())
        shape = self._numbers(entry.ShapeAsNumpy())
        if any(size < 0 for size in shape) or (signature and len(signature) != len(shape)):
            raise _Refused(f"tensor {name!r} has no possible shape")
        dtype = dtype_name(entry.Type())
        constant = self._buffers[buffer]
        if constant and dtype in _WIDTHS and not entry.Sparsity() and constant < math.prod(shape) * _WIDTHS[dtype]:
            raise _Refused(f"the weights of tensor {name!r} are cut short")
        free = tuple(None if size < 0 else size for size in signature or shape)
        return Tensor(name, dtype, free, self._quantization(entry), constant, bool(entry.IsVariable()))

    def _quantization(self, entry: Table) -> Quantization | None:
        found = entry.Quantization()
        if found is None or found.ScaleIsNone() or not found.ScaleLength():
            return None
        scales, points = found.ScaleAsNumpy(), self._numbers(found.ZeroPointAsNumpy())
        self._spend(scales.size)
        return Quantization(tuple(float(scale) for scale in scales), points, int(found.QuantizedDimension()))

    def _signature(self, entry: Table, graphs: tuple[Subgraph, ...]) -> Signature:
        index = int(entry.SubgraphIndex())
        if index >= len(graphs):
            raise _Refused("a graph that is not there is referred to")
        count = len(graphs[index].tensors)
        inputs = self._each(entry.InputsLength(), entry.Inputs)
        outputs = self._each(entry.OutputsLength(), entry.Outputs)
        return Signature(
            self._text(entry.SignatureKey()),
            index,
            tuple(self._named(item, count) for item in inputs),
            tuple(self._named(item, count) for item in outputs),
        )

    def _named(self, entry: Table, count: int) -> tuple[str, int]:
        (index,) = self._indices(np.array([entry.TensorIndex()]), 0, count)
        return self._text(entry.Name()), index


_WIDTHS = {name: np.dtype(name).itemsize for name in schema.DTYPES.values() if name != "object"}
"""Bytes of a number, where they are whole."""
