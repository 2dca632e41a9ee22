"""Files as objects that can be changed: every table unpacked, weights as views of the file."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from autoglm_edge_converter.errors import NotAModel
from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.tflite.flatbuffer import DAMAGE
from autoglm_edge_converter.tflite.schema import DTYPES, IDENTIFIER, OPERATORS, Table, tables

_ALIGNMENT = 16
"""Of the bytes of a buffer: `force_align` in the schema."""


def unpack(data: bytes) -> Table:
    """Return the `ModelT` of a file that `read_model` has found to be sound. Raises NotAModel where options are not.

    Weights kept beside the tables are taken in, so that `serialize` gives a file of its own.
    """
    try:
        model = flatbuffer_utils.read_model_from_bytearray(data)
    except DAMAGE:
        raise NotAModel(
            "the TFLite model is damaged in the options of its operators: export or copy it again"
        ) from None
    for code in model.operatorCodes or []:
        # Older files have the number in the old field alone, where it is one byte wide.
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    return model


def constant(model: Table, tensor: Table) -> Array | None:
    """Return the value that the file gives a tensor, None where it gives none. Read only."""
    raw = model.buffers[tensor.buffer].data
    if raw is None or not len(raw) or tensor.type not in DTYPES or DTYPES[tensor.type] == "object":
        return None
    shape = () if tensor.shape is None else tuple(tensor.shape)
    return np.frombuffer(bytes(raw), dtype=DTYPES[tensor.type])[: int(np.prod(shape))].reshape(shape)


def serialize(model: Table) -> bytes:
    """Return a changed model as a file of its own. Equal models give equal bytes."""
    for buffer in model.buffers:
        # What is no array the bindings write byte by byte, and unaligned: seconds for each candidate of a large model.
        if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    builder = _Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # it has no types
    """Writes equal lists once: the zero points of every channel of every weight are a sixth of a small 8-bit file.

    Weights are aligned as the schema demands, which the bindings forget.
    """

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802  # the builder calls it so
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            if x.dtype == np.uint8:
                self.Prep(_ALIGNMENT, x.nbytes)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def widen_halves(model: Table) -> None:
    """Put weights that a file stores on 16 bits and widens at each start in place of the operators that do so."""
    for graph in model.subgraphs:
        kept = []
        for operator in graph.operators:
            kind = OPERATORS.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
            value = constant(model, graph.tensors[operator.inputs[0]]) if kind == "DEQUANTIZE" else None
            if value is None or value.dtype != np.float16:
                kept.append(operator)
                continue
            buffer = tables.BufferT()
            buffer.data = np.frombuffer(value.astype(np.float32).tobytes(), np.uint8)
            graph.tensors[operator.outputs[0]].buffer = len(model.buffers)
            model.buffers.append(buffer)
            graph.tensors[operator.inputs[0]].buffer = 0
        graph.operators = kept
    forget_unread(model)


def forget_unread(model: Table) -> None:
    """Empty the buffers that no tensor reads."""
    read = {int(tensor.buffer) for graph in model.subgraphs for tensor in graph.tensors}
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None


def drop_metadata(model: Table) -> None:
    """Take out what is not needed to run: the description, and notes of converters with their buffers."""
    model.description = None
    for entry in model.metadata or []:
        model.buffers[entry.buffer].data = None
    model.metadata = None
    model.metadataBuffer = None
