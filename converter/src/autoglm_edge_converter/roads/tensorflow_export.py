"""Float TFLite by TensorFlow's converter and float ONNX by tf2onnx, from one frozen graph.

Both start from a graph whose variables are constants: TensorFlow 2.21's converter, when it is given a Keras 3 model
in a function or a SavedModel of one, reports success and leaves the weights out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from autoglm_edge_converter.errors import BadModel
from autoglm_edge_converter.roads.tensorflow_call import Call, check_call, document_of, input_ports, output_ports
from autoglm_edge_converter.roads.tensorflow_program import Request, Tell, said
from autoglm_edge_converter.roads.tf2onnx_handlers import HANDLERS
from autoglm_edge_converter.tflite.ports import rename_ports

DEFAULT_OPSET = 17

_NO_ROAD = re.compile(
    r"^(HashTable|MutableHashTable|LookupTable|MutableDenseHashTable|AnonymousHashTable|InitializeTable|String|Regex|"
    r"AsString|Decode|Encode|ParseExample|PyFunc|EagerPyFunc|ReadFile|WriteFile|IteratorGetNext|XlaCallModule)"
)
"""Operators on tables, texts, files and Python code: no plain TFLite or ONNX operator does the same."""

_UNSUPPORTED = re.compile(r"(?:Flex|Custom) ops: ([\w, ]+)")


def depart(call: Call, runnable: Path, request: Request, tell: Tell, notes: Sequence[str] = ()) -> Mapping[str, Any]:
    """Write the formats that are asked for and return the departure.

    An export that fails is a rendition with its problem. Raises BadModel where the graph itself cannot be had.
    """
    check_call(call)
    try:
        concrete = call.traced()
    except Exception as error:
        raise BadModel(f"TensorFlow cannot trace the model: {said(error)}") from None
    tell({"step": "trace"})
    return {
        "runnable": str(runnable),
        "inputs": document_of(input_ports(call)),
        "outputs": document_of(output_ports(call, concrete)),
        "renditions": renditions(call, concrete, request, tell),
        "versions": {name: version(package) for name, package in _packages().items()},
        "notes": list(notes),
    }


def _packages() -> dict[str, str]:
    tensorflow = {"tensorflow": "tensorflow-cpu"} if _is_installed("tensorflow-cpu") else {"tensorflow": "tensorflow"}
    return tensorflow | {"keras": "keras", "tf2onnx": "tf2onnx"}


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except ModuleNotFoundError:
        return False


def renditions(
    call: Call, concrete: Any, request: Request, tell: Tell, stem: str = "float", pruning: float = 0.0
) -> list[dict[str, Any]]:
    """Write a file of each format that is asked for, STEM.FORMAT; one that fails is told with its problem."""
    made = [_rendition(format_, call, concrete, request, tell, stem) for format_ in request.formats]
    return [entry | ({"pruning": pruning} if pruning else {}) for entry in made]


def _rendition(format_: str, call: Call, concrete: Any, request: Request, tell: Tell, stem: str) -> dict[str, Any]:
    road, write = {
        "tflite": (f"TensorFlow {tf.__version__}'s converter", write_tflite),
        "onnx": (f"tf2onnx {version('tf2onnx')}", write_onnx),
    }[format_]
    path = request.scratch / f"{stem}.{format_}"
    problem = None
    try:
        frozen = freeze(concrete)
        write(frozen, call, path, request.options)
    except Exception as error:
        problem = str(error) if isinstance(error, BadModel) else _reason(error, call)
    tell({"step": road})
    return {"format": format_, "path": None if problem else str(path), "road": road, "problem": problem}


def freeze(concrete: Any) -> Any:
    """Return a concrete function whose variables are constants.

    Raises BadModel for operators that have no counterpart anywhere; errors of TensorFlow pass through.
    """
    for operator in sorted(_operators(concrete.graph.as_graph_def())):
        if _NO_ROAD.match(operator):
            raise BadModel(
                f"operator {operator} has no counterpart in TFLite or ONNX: convert the part of the model without it, "
                "and do its work on tables, texts or files before or after the model"
            )
    return convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True)


def _operators(graph: Any) -> set[str]:
    nodes: Iterable[Any] = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def write_tflite(frozen: Any, call: Call, path: Path, options: Mapping[str, Any]) -> None:
    """Write a float TFLite file with the call's ports. Errors of TensorFlow pass through."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if options.get("select_tf_ops"):
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    written = converter.convert()
    path.write_bytes(rename_ports(written, [spec.name for spec in call.inputs], call.outputs))


def write_onnx(frozen: Any, call: Call, path: Path, options: Mapping[str, Any]) -> None:
    """Write a float ONNX file with the call's ports, in the same layout. Errors of tf2onnx pass through."""
    from tf2onnx.convert import from_graph_def

    inputs = [tensor.name for tensor in frozen.inputs]
    outputs = [tensor.name for tensor in frozen.outputs]
    opset = int(options.get("opset", DEFAULT_OPSET))
    proto, _ = from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=inputs,
        output_names=outputs,
        opset=opset,
        custom_op_handlers=dict(HANDLERS),
    )
    named = dict(zip(inputs, (spec.name for spec in call.inputs), strict=True))
    rename_onnx(proto.graph, named | dict(zip(outputs, call.outputs, strict=True)))
    _order(proto.graph.input, [spec.name for spec in call.inputs])
    _order(proto.graph.output, call.outputs)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def rename_onnx(graph: Any, names: Mapping[str, str]) -> None:
    """Rename tensors of a graph; another tensor that has one of the new names is called otherwise. Changes it."""
    taken = set(names.values()) - set(names)
    tensors = {name for node in graph.node for name in node.output} | {entry.name for entry in graph.initializer}
    renamed = {name: f"{name}__inner" for name in taken & tensors} | dict(names)
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [renamed.get(name, name) for name in side]
    for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.name = renamed.get(entry.name, entry.name)


def _order(ports: Any, names: Sequence[str]) -> None:
    by_name = {port.name: port for port in ports}
    copies = [onnx.ValueInfoProto.FromString(by_name[name].SerializeToString()) for name in names]
    del ports[:]
    ports.extend(copies)


def _reason(error: Exception, call: Call) -> str:
    text = str(error)
    if "TensorListReserve" in text:
        shapes = (f"{spec.name}={','.join(str(size or 1) for size in spec.shape)}" for spec in call.inputs)
        return f"recurrent layers need a fixed batch in TFLite: give it with --shape {' --shape '.join(shapes)}"
    names = sorted({name.strip() for found in _UNSUPPORTED.findall(text) for name in found.split(",")} - {""})
    if names:
        return f"there is no TFLite operator for {', '.join(names)}: replace it in the model"
    return said(error)
