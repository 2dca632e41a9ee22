"""The names and the order of a TFLite file's inputs and outputs, which its converters make up.

TensorFlow's converter sorts inputs as it likes and calls outputs `StatefulPartitionedCall:1`; only the signature keeps
what the author meant. Here a file gets one signature and tensors with the names that the model had.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoglm_edge_converter.errors import BadModel
from autoglm_edge_converter.tflite.editing import serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import TfliteModel, read_model
from autoglm_edge_converter.tflite.schema import Table, tables

SIGNATURE = "serving_default"
"""The key of the one signature, as TensorFlow writes it."""

_NUMBERED = re.compile(r"^(?:output|args?)_(\d+)$")
"""What TensorFlow and litert-torch call what has no name, by its position in the original."""

_DECORATED = re.compile(r"^(?:serving_default_)?(.+?)(?::\d+)?$")


def rename_ports(model: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Return the file with these inputs and outputs, in this order.

    A port that has one of the names already (in the signature, or decorated by a converter) is put where the name
    stands; otherwise names are given by position, that of the original where the signature numbers its ports.
    Raises NotAModel; BadModel where the numbers of ports differ or a name is given twice.
    """
    found = read_model(model)
    changed = unpack(model)
    graph = changed.subgraphs[0]
    graph.inputs = [found.main.inputs[at] for at in _order(_names(found, "inputs"), inputs, "inputs")]
    graph.outputs = [found.main.outputs[at] for at in _order(_names(found, "outputs"), outputs, "outputs")]
    name_ports(changed, inputs, outputs)
    return serialize(changed)


def name_ports(model: Table, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the inputs and outputs these names, by position; a signature says so too. Changes the model."""
    graph = model.subgraphs[0]
    _name_tensors(graph, dict(zip([*graph.outputs, *graph.inputs], [*outputs, *inputs], strict=True)))
    kept = [entry for entry in model.signatureDefs or [] if entry.subgraphIndex != 0]
    model.signatureDefs = [_signature(graph, inputs, outputs), *kept]


def _names(found: TfliteModel, side: str) -> tuple[str, ...]:
    return tuple(port.name for port in (found.inputs if side == "inputs" else found.outputs))


def _order(present: Sequence[str], wanted: Sequence[str], side: str) -> list[int]:
    """Return, for each wanted name, which of the ports it is."""
    if len(present) != len(wanted):
        raise BadModel(f"the TFLite file has {len(present)} {side} ({', '.join(present)}), {len(wanted)} are expected")
    if len(set(wanted)) != len(wanted):
        raise BadModel(f"two {side} have the same name ({', '.join(wanted)}): give them names of their own")
    for names in (list(present), [_plain(name) for name in present]):
        if sorted(names) == sorted(wanted):
            return [names.index(name) for name in wanted]
    numbers = [_NUMBERED.match(name) for name in present]
    places = [int(match.group(1)) for match in numbers if match]
    if len(set(places)) == len(present):
        return sorted(range(len(present)), key=places.__getitem__)
    return list(range(len(present)))


def _plain(name: str) -> str:
    match = _DECORATED.match(name)
    return match.group(1) if match else name


def _name_tensors(graph: Table, names: dict[int, str]) -> None:
    """Name the tensors of the ports; another tensor of the same name is called otherwise."""
    taken = set(names.values())
    for index, tensor in enumerate(graph.tensors):
        if index in names:
            tensor.name = names[index].encode()
            continue
        name = (tensor.name or b"").decode(errors="replace")
        if name in taken:
            tensor.name = f"{name};{index}".encode()


def _signature(graph: Table, inputs: Sequence[str], outputs: Sequence[str]) -> Table:
    signature = tables.SignatureDefT()
    signature.signatureKey = SIGNATURE.encode()
    signature.subgraphIndex = 0
    signature.inputs = [_map(name, index) for name, index in zip(inputs, graph.inputs, strict=True)]
    signature.outputs = [_map(name, index) for name, index in zip(outputs, graph.outputs, strict=True)]
    return signature


def _map(name: str, index: int) -> Table:
    entry = tables.TensorMapT()
    entry.name = name.encode()
    entry.tensorIndex = index
    return entry
