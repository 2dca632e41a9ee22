"""A written model opened for a look at its layers, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from autoglm_edge_converter.tensors import Array


@dataclass(frozen=True)
class Inside:
    """A layer with weights as it stands in a file."""

    operator: str
    output: str
    """The tensor that comes out, after its activation, and after it went through 8 bits where it does."""
    stored_bytes: int
    """Of its constants."""
    in_float: bool


class Opened(Protocol):
    """One file."""

    def layers(self) -> Mapping[str, Inside]:
        """Return the layers with weights by name, in the graph's order."""

    def weights(self, layer: str) -> Array | None:
        """Return a layer's weights as the real numbers that they stand for; None where the file has none."""

    def outputs(self, tensors: Sequence[str], samples: Sequence[int]) -> dict[str, list[Array]]:
        """Run the file with inner tensors as further outputs. Raises CandidateFailed."""
