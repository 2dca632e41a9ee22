"""What a user brings: a model of some framework, and the float files of it that a device can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from autoglm_edge_converter.tensors import Port

ONNX, TFLITE = "onnx", "tflite"
FORMATS = (ONNX, TFLITE)
"""What variants can be made in."""


@dataclass(frozen=True)
class Rendition:
    """The float model in one format, or why it could not be had.

    Its inputs and outputs are the original's: the same names in the same order, the same layout and dtypes.
    """

    format: str
    path: Path | None
    road: str
    """What made it, with its version, as `tf2onnx 1.17.0`; `as it came` for the original itself."""
    problem: str | None = None
    """Why there is no file; where it is told, the road stands before it."""
    pruning: float = 0.0
    """Fraction of the multiplications that was taken out, where the road prunes."""


@dataclass(frozen=True)
class Original:
    """The model as its author left it."""

    path: Path
    """As the user named it, a function in a Python file without its name."""
    framework: str
    """`onnx`, `tflite`, `keras`, `savedmodel` or `pytorch`."""
    sha256: str
    size_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    runnable: Path
    """What gives the reference answers: the original in its own framework."""
    renditions: tuple[Rendition, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that the roads used."""
    notes: tuple[str, ...] = ()
    precision: str = "float32"
    """Of most of its weights, or that it computes in where its weights are kept in another."""
    single: Path | None = None
    """The ONNX rendition in single precision, where it came in another (see `given_precision`)."""
    came: Path | None = None
    """That rendition as it came."""

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The float ONNX graph; it must not be changed, copy it first. Only where there is such a rendition."""
        found = self.rendition(ONNX)
        assert found is not None
        assert found.path is not None
        return onnx.load(found.path)

    def rendition(self, name: str) -> Rendition | None:
        """Return the unpruned float file of a format, None where there is none."""
        return next((r for r in self.renditions if r.format == name and r.path is not None and not r.pruning), None)
