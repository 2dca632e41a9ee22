"""Moving a model between operator sets: up, where the quantizer wants a newer one; down, where a target reads no such.

The ONNX package converts upwards well and downwards seldom. But most operators that a newer set lists again only take
more types or one more attribute; a model that uses none of that means the same under the older number. What the older
set lacks altogether is written out where the standard gives a definition by older operators. None of this is proof:
the caller compares the answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx.inliner import inline_local_functions, inline_selected_functions

from autoglm_edge_converter.source import all_nodes, opset_of

_STANDARD_DOMAINS = ("", "ai.onnx")

IR_OF_OPSET = {
    **dict.fromkeys(range(1, 19), 8), 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13, 27: 13, 28: 14,
}  # fmt: skip
"""The file format that a runtime which reads an operator set is sure to read; 8 for all older ones, which holds
initializers that are no inputs. Source: `onnx.helper.VERSION_TABLE`."""


class OperatorStands(ValueError):
    """An operator that has no equal in the operator set wanted."""

    def __init__(self, node: onnx.NodeProto, wanted: int) -> None:
        name = node.name or (node.output[0] if node.output else "")
        super().__init__(f"operator {node.op_type} (node {name!r}) cannot be had with operator set {wanted}")
        self.operator = node.op_type
        self.node = name


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace calls of the model's own functions by what they do, so that every node is seen."""
    return inline_local_functions(proto, convert_version=True) if proto.functions else proto


def raise_opset(proto: onnx.ModelProto, wanted: int) -> onnx.ModelProto:
    """Bring a model of an older operator set to the one wanted. Errors of the converter pass through."""
    if not 0 < opset_of(proto) < wanted:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, wanted)
    except Exception:
        # It knows no foreign operators and trips over some graphs that need no conversion at all.
        if next(obstacles(proto, wanted), None) is not None:
            raise
        return _relabelled(proto, wanted)


def lower_opset(proto: onnx.ModelProto, newest: int) -> onnx.ModelProto:
    """Bring a model of a newer operator set to `newest`. Raises OperatorStands, which names the first that cannot."""
    if opset_of(proto) <= newest:
        return proto
    proto = _written_out(proto, newest)
    obstacle = next(obstacles(proto, newest), None)
    if obstacle is None:
        return _relabelled(proto, newest)
    try:
        return onnx.version_converter.convert_version(proto, newest)
    except Exception:
        raise OperatorStands(obstacle, newest) from None


def obstacles(proto: onnx.ModelProto, wanted: int) -> Iterator[onnx.NodeProto]:
    """Give the nodes that would not mean the same under another number of the operator set."""
    present = opset_of(proto)
    return (node for node in all_nodes(proto.graph) if _standard(node) and not _means_the_same(node, present, wanted))


def _standard(node: onnx.NodeProto) -> bool:
    return node.domain in _STANDARD_DOMAINS


def _means_the_same(node: onnx.NodeProto, present: int, wanted: int) -> bool:
    if not onnx.defs.has(node.op_type, wanted, "") or not onnx.defs.has(node.op_type, present, ""):
        return False
    one = onnx.defs.get_schema(node.op_type, present, "")
    other = onnx.defs.get_schema(node.op_type, wanted, "")
    if one.since_version == other.since_version:
        return True
    return not other.deprecated and _takes_inputs(node, one, other) and _takes_attributes(node, one, other)


def _takes_inputs(node: onnx.NodeProto, one: onnx.defs.OpSchema, other: onnx.defs.OpSchema) -> bool:
    counts = other.min_input <= len(node.input) <= other.max_input
    names = [[entry.name for entry in schema.inputs[: len(node.input)]] for schema in (one, other)]
    return counts and names[0] == names[1] and other.min_output <= len(node.output) <= other.max_output


def _takes_attributes(node: onnx.NodeProto, one: onnx.defs.OpSchema, other: onnx.defs.OpSchema) -> bool:
    given = {attribute.name for attribute in node.attribute}
    required = {name for name, entry in other.attributes.items() if entry.required}
    if not required <= given <= set(other.attributes):
        return False
    left_out = (set(one.attributes) & set(other.attributes)) - given
    return all(one.attributes[name].default_value == other.attributes[name].default_value for name in left_out)


def _written_out(proto: onnx.ModelProto, newest: int) -> onnx.ModelProto:
    """Replace operators that the older set lacks by their definition, where the standard has one."""
    for _ in range(len(onnx.defs.get_all_schemas())):
        defined = [node for node in obstacles(proto, newest) if _has_definition(node, opset_of(proto))]
        if not defined:
            break
        found = {("", node.op_type) for node in defined}
        _tell_types(proto)
        _tell_defaults(proto, found)
        proto = inline_selected_functions(proto, sorted(found), inline_schema_functions=True)
    return proto


def _tell_types(proto: onnx.ModelProto) -> None:
    """The inliner wants the type of everything that a definition reads, constants too."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    graph = proto.graph
    del graph.value_info[:]
    graph.value_info.extend(inferred.value_info)
    known = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in known
    )


def _tell_defaults(proto: onnx.ModelProto, operators: Collection[tuple[str, str]]) -> None:
    """The inliner forgets the value of an attribute that is left out."""
    for node in all_nodes(proto.graph):
        if not _standard(node) or ("", node.op_type) not in operators:
            continue
        given = {attribute.name for attribute in node.attribute}
        defaults = onnx.defs.get_schema(node.op_type, opset_of(proto), "").attributes.values()
        node.attribute.extend(
            entry.default_value for entry in defaults if entry.name not in given and entry.default_value.type
        )


def _has_definition(node: onnx.NodeProto, present: int) -> bool:
    if not onnx.defs.has(node.op_type, present, ""):
        return False
    schema = onnx.defs.get_schema(node.op_type, present, "")
    # The type stubs lack both.
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]


def _relabelled(proto: onnx.ModelProto, wanted: int) -> onnx.ModelProto:
    for entry in proto.opset_import:
        if entry.domain in _STANDARD_DOMAINS:
            entry.version = wanted
    return proto


def oldest_format(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Write the file format that suits the operator set: runtimes refuse newer ones unread."""
    proto.ir_version = IR_OF_OPSET.get(opset_of(proto), proto.ir_version)
    return proto
