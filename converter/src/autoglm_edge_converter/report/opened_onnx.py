"""An ONNX file opened for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import onnx

from autoglm_edge_converter.report.layers import Weighted, constants, stored_bytes, weighted
from autoglm_edge_converter.report.opened import Inside
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.workbench import Workbench

_ON_8_BITS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)


class OpenedOnnx:
    """Is an `opened.Opened`. Raises OSError where the file cannot be read."""

    def __init__(self, bench: Workbench, path: Path) -> None:
        self._bench = bench
        self._model = onnx.load(path)

    def layers(self) -> Mapping[str, Inside]:
        """See `Opened`."""
        sizes = stored_bytes(self._model.graph)
        return {
            name: Inside(entry.operator, entry.output, sizes.get(name, 0), self._is_float(entry))
            for name, entry in self._weighted.items()
        }

    def weights(self, layer: str) -> Array | None:
        """See `Opened`."""
        return self._constants.get(self._weighted[layer].weight)

    def outputs(self, tensors: Sequence[str], samples: Sequence[int]) -> dict[str, list[Array]]:
        """See `Opened`."""
        opened = onnx.ModelProto()
        opened.CopyFrom(self._model)
        outer = [value.name for value in opened.graph.output]
        inner = [name for name in dict.fromkeys(tensors) if name not in outer]
        opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
        answers = self._bench.laboratory.run(self._bench.write(opened, "evidence"), samples)
        return {name: [sample[number] for sample in answers] for number, name in enumerate([*outer, *inner])}

    @cached_property
    def _weighted(self) -> dict[str, Weighted]:
        return weighted(self._model.graph)

    @cached_property
    def _constants(self) -> dict[str, Array]:
        return constants(self._model.graph)

    def _is_float(self, entry: Weighted) -> bool:
        types = [tensor.data_type for tensor in self._model.graph.initializer if tensor.name == entry.weight]
        return bool(types) and not set(types).intersection(_ON_8_BITS)
