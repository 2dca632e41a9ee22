"""The inputs and outputs of a variant as its manifest has them: what applications see, and what its file has instead.

States are not among them (see `remembering`). INT8 inputs and outputs stand for real numbers by a scale that the
variant's calibration found; the manifest says which, so that a device converts, whatever runtime it gives the file to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_converter.formats import format_of
from autoglm_edge_converter.original import TFLITE, Original
from autoglm_edge_converter.remembering import Link
from autoglm_edge_converter.tensors import Port
from autoglm_edge_protocol.manifest import State, Stored, TensorSpec


@dataclass(frozen=True)
class Ports:
    """In the order of the original's."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[State, ...]


def ports_of(path: Path, source: Original, links: Sequence[Link]) -> Ports:
    """Return the ports of a variant's file. Raises OSError."""
    given, made = {link.input for link in links}, {link.output for link in links}
    inputs = {port.name: port.spec() for port in source.inputs}
    stored = _stored(path) if format_of(path) == TFLITE else {}
    return Ports(
        inputs=_specs([port for port in source.inputs if port.name not in given], stored),
        outputs=_specs([port for port in source.outputs if port.name not in made], stored),
        states=tuple(State(input=inputs[link.input], output=link.output) for link in links),
    )


def _specs(ports: Sequence[Port], stored: Mapping[str, Stored]) -> tuple[TensorSpec, ...]:
    specs = ((port.spec(), stored.get(port.name)) for port in ports)
    return tuple(
        spec.model_copy(update={"stored": found}) if found and found.datatype != spec.datatype else spec
        for spec, found in specs
    )


def _stored(path: Path) -> dict[str, Stored]:
    """Return what stands for real numbers in a TFLite file, by the port's name."""
    from autoglm_edge_converter.tflite.flatbuffer import read_model  # needs packages that ONNX does without

    file = read_model(path.read_bytes(), path.name)
    found = {}
    for ports, indices in ((file.inputs, file.main.inputs), (file.outputs, file.main.outputs)):
        for port, index in zip(ports, indices, strict=True):
            numbers = file.main.tensors[index].quantization
            if numbers is not None and len(numbers.scales) == 1:
                datatype, zero_point = port.spec().datatype, int(numbers.zero_points[0])
                found[port.name] = Stored(datatype=datatype, scale=numbers.scales[0], zero_point=zero_point)
    return found
