"""A TFLite file opened for the report: inner tensors become outputs, integers the real numbers that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from autoglm_edge_converter.report.opened import Inside
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.tflite.editing import constant, serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import Operation, Quantization, Subgraph, read_model
from autoglm_edge_converter.tflite.nodes import PRODUCTS
from autoglm_edge_converter.tflite.schema import Table
from autoglm_edge_converter.workbench import Workbench


class OpenedTflite:
    """Is an `opened.Opened`. Tensors are told by their index; `names` are those that the float file had.

    Quantizing adds tensors behind those that were there, so an index means the same before and after. Raises NotAModel,
    OSError.
    """

    def __init__(self, bench: Workbench, path: Path, names: Sequence[str]) -> None:
        self._bench = bench
        self._data = path.read_bytes()
        self._graph: Subgraph = read_model(self._data, path.name).main
        self._products = {names[index]: entry for index, entry in self._by_output().items() if index < len(names)}

    def layers(self) -> Mapping[str, Inside]:
        """See `Opened`."""
        return {name: self._inside(entry) for name, entry in self._products.items()}

    def weights(self, layer: str) -> Array | None:
        """See `Opened`."""
        index = self._stored(self._weight(self._products[layer]))
        value = constant(self._unpacked, self._unpacked.subgraphs[0].tensors[index])
        return None if value is None else _real(value, self._graph.tensors[index].quantization)

    def outputs(self, tensors: Sequence[str], samples: Sequence[int]) -> dict[str, list[Array]]:
        """See `Opened`."""
        changed = unpack(self._data)
        graph = changed.subgraphs[0]
        wanted = list(dict.fromkeys(int(index) for index in tensors))
        graph.outputs = wanted
        changed.signatureDefs = []
        path = self._bench.scratch / "evidence.tflite"
        path.write_bytes(serialize(changed))
        answers = self._bench.laboratory.run(path, samples)
        scales = [self._graph.tensors[index].quantization for index in wanted]
        return {
            str(index): [_real(sample[number], scales[number]) for sample in answers]
            for number, index in enumerate(wanted)
        }

    def _by_output(self) -> dict[int, Operation]:
        return {entry.outputs[0]: entry for entry in self._graph.operations if entry.kind in PRODUCTS}

    def _inside(self, entry: Operation) -> Inside:
        parts = [self._stored(index) for index in entry.inputs if index >= 0]
        stored = sum(self._graph.tensors[index].constant_bytes for index in dict.fromkeys(parts))
        in_float = self._graph.tensors[self._weight(entry)].dtype == "float32" and self._weight(entry) in parts
        return Inside(entry.kind, str(entry.outputs[0]), stored, in_float)

    def _weight(self, entry: Operation) -> int:
        return entry.inputs[PRODUCTS[entry.kind][1]]

    def _stored(self, index: int) -> int:
        """Return the constant that a tensor is widened from, itself where it is none of those."""
        maker = self._widened.get(index)
        return index if maker is None else maker

    @cached_property
    def _widened(self) -> dict[int, int]:
        return {
            entry.outputs[0]: entry.inputs[0]
            for entry in self._graph.operations
            if entry.kind == "DEQUANTIZE" and self._graph.tensors[entry.inputs[0]].constant_bytes
        }

    @cached_property
    def _unpacked(self) -> Table:
        return unpack(self._data)


def _real(values: Array, found: Quantization | None) -> Array:
    if found is None or values.dtype.kind not in "iu":
        return values
    scale, zero = np.asarray(found.scales, np.float32), np.asarray(found.zero_points or (0,), np.float32)
    if scale.size > 1:
        shape = [-1 if axis == found.axis else 1 for axis in range(values.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    return np.asarray((values.astype(np.float32) - zero) * scale)
