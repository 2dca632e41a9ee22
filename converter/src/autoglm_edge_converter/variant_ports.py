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
    own = _own(path) if format_of(path) == TFLITE else {}
    inputs = {port.name: _spec(port, own) for port in source.inputs}
    return Ports(
        inputs=tuple(spec for name, spec in inputs.items() if name not in given),
        outputs=tuple(_spec(port, own) for port in source.outputs if port.name not in made),
        states=tuple(
            State(input=inputs[link.input].model_copy(update={"stored": None}), output=link.output) for link in links
        ),
    )


@dataclass(frozen=True)
class _Own:
    """What a TFLite file itself has of a port."""

    shape: tuple[int | None, ...] | None
    stored: Stored | None


def _spec(port: Port, own: Mapping[str, _Own]) -> TensorSpec:
    spec, found = port.spec(), own.get(port.name)
    if found is None:
        return spec
    if found.shape is not None and len(found.shape) == len(spec.shape):
        # A road that fixes an axis makes a file that runs with this size alone.
        fixed = zip(spec.shape, found.shape, strict=True)
        spec = spec.model_copy(update={"shape": tuple((here or size) if size == -1 else size for size, here in fixed)})
    if found.stored is not None and found.stored.datatype != spec.datatype:
        spec = spec.model_copy(update={"stored": found.stored})
    return spec


def _own(path: Path) -> dict[str, _Own]:
    """Return the ports of a TFLite file by name, with what stands for real numbers in them."""
    from autoglm_edge_converter.tflite.flatbuffer import read_model  # needs packages that ONNX does without

    file = read_model(path.read_bytes(), path.name)
    found = {}
    for ports, indices in ((file.inputs, file.main.inputs), (file.outputs, file.main.outputs)):
        for port, index in zip(ports, indices, strict=True):
            numbers, stored = file.main.tensors[index].quantization, None
            if numbers is not None and len(numbers.scales) == 1:
                datatype, zero_point = port.spec().datatype, int(numbers.zero_points[0])
                stored = Stored(datatype=datatype, scale=numbers.scales[0], zero_point=zero_point)
            found[port.name] = _Own(port.shape, stored)
    return found
