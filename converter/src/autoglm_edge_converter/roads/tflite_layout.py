"""Giving the inputs and outputs of a TFLite file the shape and layout of the ONNX graph that it was made of.

onnx2tf computes with channels last and leaves spatial outputs so, without saying for which: the answers tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autoglm_edge_converter.tensors import Array
from autoglm_edge_converter.tflite.editing import serialize, unpack
from autoglm_edge_converter.tflite.schema import Table, tables
from autoglm_edge_protocol.golden import compare

_ALIKE_DB = 60.0

Axes = tuple[int, ...]


def axes_to_restore(expected: Sequence[Array], found: Sequence[Array]) -> Axes | None:
    """Return the transposition by which an output becomes what the original answers, None where none is needed.

    Both are one output of several samples. None too where no layout explains the difference.
    """
    rank = expected[0].ndim
    last = (0, rank - 1, *range(1, rank - 1))
    if rank < 3 or found[0].ndim != rank or _alike(expected, found):
        return None
    moved = [array.transpose(last) for array in found]
    fits = moved[0].shape == expected[0].shape and (_alike(expected, moved) or found[0].shape != expected[0].shape)
    return last if fits else None


def _alike(expected: Sequence[Array], found: Sequence[Array]) -> bool:
    if expected[0].shape != found[0].shape:
        return False
    agreement = compare(expected, found)
    return agreement.equal == 1 or (agreement.sqnr_db is not None and agreement.sqnr_db >= _ALIKE_DB)


def transpose_outputs(model: bytes, axes: Mapping[int, Axes]) -> bytes:
    """Return the file with a TRANSPOSE behind each output given by position; what it gives takes over the name."""
    changed = unpack(model)
    graph = changed.subgraphs[0]
    code = _transpose_code(changed)
    for position, order in axes.items():
        before = graph.outputs[position]
        after = _moved_tensor(changed, graph.tensors[before], order)
        permutation = _constant(changed, np.asarray(order, np.int32), graph.tensors[after].name + b"/axes")
        operator = tables.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, [before, permutation], [after]
        operator.builtinOptionsType = tables.BuiltinOptions.TransposeOptions
        operator.builtinOptions = tables.TransposeOptionsT()
        graph.operators.append(operator)
        graph.outputs[position] = after
    changed.signatureDefs = None  # they name the tensors before; `rename_ports` writes them anew
    return serialize(changed)


def make_scalars(model: bytes, inputs: Sequence[int]) -> bytes:
    """Return the file with these inputs, by position, as single numbers without an axis; onnx2tf gives them one."""
    changed = unpack(model)
    graph = changed.subgraphs[0]
    for position in inputs:
        tensor = graph.tensors[graph.inputs[position]]
        if tensor.shape is not None and list(tensor.shape) == [1]:
            tensor.shape, tensor.shapeSignature = [], None
    return serialize(changed)


def _transpose_code(model: Table) -> int:
    kind = tables.BuiltinOperator.TRANSPOSE
    for index, entry in enumerate(model.operatorCodes):
        if entry.builtinCode == kind:
            return index
    code = tables.OperatorCodeT()
    # Old readers look at the older, narrower field.
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _moved_tensor(model: Table, like: Table, order: Axes) -> int:
    tensor = tables.TensorT()
    tensor.name, tensor.type, tensor.buffer = like.name, like.type, 0  # the empty buffer: not a constant
    tensor.shape = [int(like.shape[axis]) for axis in order]
    tensor.quantization = like.quantization
    like.name = like.name + b"/channels_last"
    return _add(model, tensor)


def _constant(model: Table, value: Array, name: bytes) -> int:
    buffer = tables.BufferT()
    buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = tables.TensorT()
    tensor.name, tensor.type, tensor.shape = name, tables.TensorType.INT32, list(value.shape)
    tensor.buffer = len(model.buffers) - 1
    return _add(model, tensor)


def _add(model: Table, tensor: Table) -> int:
    tensors = model.subgraphs[0].tensors
    tensors.append(tensor)
    return len(tensors) - 1
