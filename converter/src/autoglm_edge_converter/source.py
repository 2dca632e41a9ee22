"""Loading the original: an ONNX file that is whole, finite and made of known operators, or a typed error.

Whether the runtime accepts the model is found out by running it (see `laboratory`), not here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no types

from autoglm_edge_converter.errors import (
    BadModel,
    BadOption,
    BrokenWeights,
    MissingWeights,
    NotAModel,
    UnknownOperator,
)
from autoglm_edge_converter.tensors import Port, input_ports, output_ports
from autoglm_edge_protocol.digests import sha256_of_file

_STANDARD_DOMAINS = ("", "ai.onnx")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
_LARGEST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class SourceModel:
    """The original model. `proto` must not be changed; copy it first."""

    path: Path
    sha256: str
    size_bytes: int
    proto: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def opset(self) -> int:
        """The version of the standard operators that the model uses."""
        return opset_of(self.proto)


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the standard operator set, 0 where the model uses none of it."""
    return next((entry.version for entry in proto.opset_import if entry.domain in _STANDARD_DOMAINS), 0)


def load_source(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> SourceModel:
    """Read an ONNX model and fix the free axes that `shapes` names (-1 keeps one free).

    Raises NotAModel, MissingWeights, BrokenWeights, UnknownOperator, BadModel, BadOption, OSError.
    """
    proto = _read(path)
    _check_operators(proto)
    _check_weights(proto)
    _check_kinds(proto.graph)
    _name_nodes(proto.graph)
    inputs = fix_shapes(input_ports(proto.graph), shapes or {})
    if not inputs:
        raise BadModel(f"{path} takes no input, so there is nothing to calibrate")
    _write_shapes(proto, inputs)
    return SourceModel(path, sha256_of_file(path), path.stat().st_size, proto, inputs, output_ports(proto.graph))


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise NotAModel(f"{path} is not a file: give the path of an ONNX model")
    try:
        proto = onnx.load(path, load_external_data=False)
        _check_size(path, proto)
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (DecodeError, UnicodeDecodeError) as error:
        raise NotAModel(f"{path} is not an ONNX model, or is cut short ({error}): export or copy it again") from None
    except (onnx.checker.ValidationError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise MissingWeights(f"{path} keeps weights in another file that cannot be read: {reason}") from None
    if not proto.graph.node or not proto.opset_import:
        raise NotAModel(f"{path} holds no ONNX graph: export the model again")
    return proto


def _check_size(path: Path, proto: onnx.ModelProto) -> None:
    """Before the weights are read, which may be more than there is memory."""
    size_bytes = path.stat().st_size + sum(_external_bytes(tensor) for tensor in proto.graph.initializer)
    if size_bytes > _LARGEST_BYTES:
        raise BadModel(f"{path} has {size_bytes} bytes of weights; models above 2 GiB cannot be converted yet")


def _external_bytes(tensor: onnx.TensorProto) -> int:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return 0
    items = math.prod(tensor.dims)
    return int(items * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Give the nodes of a graph and of the graphs inside its control flow."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def _check_operators(proto: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in proto.functions}
    opset = opset_of(proto)
    for node in all_nodes(proto.graph):
        if node.domain not in _STANDARD_DOMAINS or (node.domain, node.op_type) in own:
            continue
        if not onnx.defs.has(node.op_type, opset, ""):
            raise UnknownOperator(node.op_type, node.name or node.output[0])


_CUT = "cut the model so that what makes or takes it is outside"


def _check_kinds(graph: onnx.GraphProto) -> None:
    """Only arrays of numbers can be calibrated with, compared, and kept in a golden set."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [("input", value) for value in graph.input if value.name not in constants]
    for role, value in (*inputs, *(("output", value) for value in graph.output)):
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type" or value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            found = "text" if kind == "tensor_type" else f"of the kind {kind.removesuffix('_type')}"
            makers = {node.op_type for node in graph.node if value.name in node.output}
            # What skl2onnx appends to classifiers unless it is told not to.
            way = "export it with zipmap=False" if makers == {"ZipMap"} else _CUT
            raise BadModel(f"{role} {value.name!r} is {found}; only arrays of numbers can be converted: {way}")


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give nodes without a name of their own one: the runtime refuses two alike, and nodes are told apart by it."""
    taken = {node.name for node in graph.node}
    seen = {""}
    for number, node in enumerate(graph.node):
        if node.name in seen:
            fresh = (f"{node.op_type}_{number}{'_' * times}" for times in itertools.count())
            node.name = next(name for name in fresh if name not in taken)
            taken.add(node.name)
        seen.add(node.name)


def _check_weights(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_type not in _FLOATS:
            continue
        try:
            values = onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise NotAModel(f"weight {tensor.name!r} cannot be read ({error}): export the model again") from None
        if np.isnan(values).any():
            raise BrokenWeights(f"weight {tensor.name!r} holds NaN: the model is damaged or its training diverged")


def fix_shapes(inputs: tuple[Port, ...], shapes: Mapping[str, tuple[int, ...]]) -> tuple[Port, ...]:
    """Return the inputs with the free axes filled from the hints. Raises BadOption."""
    unknown = sorted(set(shapes) - {port.name for port in inputs})
    if unknown:
        names = ", ".join(port.name for port in inputs)
        raise BadOption(f"--shape names {unknown[0]!r}, but the model's inputs are: {names}")
    return tuple(_fix(port, shapes[port.name]) if port.name in shapes else port for port in inputs)


def _fix(port: Port, hint: tuple[int, ...]) -> Port:
    wanted = tuple(None if axis == -1 else axis for axis in hint)
    if any(axis is not None and axis < 1 for axis in wanted):
        raise BadOption(f"--shape {port.name}: an axis is at least 1, or -1 to stay free")
    if port.shape is None:
        return replace(port, shape=wanted)
    if len(wanted) != len(port.shape) or any(
        have is not None and want not in (None, have) for have, want in zip(port.shape, wanted, strict=True)
    ):
        raise BadOption(f"--shape {port.name}: the model takes {_written(port.shape)}, not {_written(wanted)}")
    merged = tuple(have if have is not None else want for have, want in zip(port.shape, wanted, strict=True))
    return replace(port, shape=merged)


def _written(shape: tuple[int | None, ...]) -> str:
    return "[" + ",".join("?" if axis is None else str(axis) for axis in shape) + "]"


def _write_shapes(proto: onnx.ModelProto, inputs: tuple[Port, ...]) -> None:
    by_name = {port.name: port for port in inputs}
    for value in proto.graph.input:
        port = by_name.get(value.name)
        if port is None or port.shape is None:
            continue
        shape = value.type.tensor_type.shape
        if not value.type.tensor_type.HasField("shape"):
            shape.SetInParent()
            shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in port.shape)
        for axis, size in zip(shape.dim, port.shape, strict=True):
            if size is not None:
                axis.dim_value = size
