"""The side of a conversion that makes one format: its float files and what tries candidates of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_converter.cache import Cache
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.inspection import WeightedNode
from autoglm_edge_converter.measure import Form
from autoglm_edge_converter.optimise import PassOutcome
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.pruned_graphs import Pruning
from autoglm_edge_converter.selection import Builder

Open = Callable[[Deadline, Cache, Progress], Builder]
"""Calibrates the float graphs and returns what makes candidates of them."""


@dataclass(frozen=True)
class Pruned:
    """A pruned float graph as it was written."""

    name: str
    path: Path
    pruning: float
    """Fraction of the original's weights that was taken out."""


@dataclass(frozen=True)
class Side:
    """The float side of one format, before anything is searched."""

    format: str
    floats: tuple[Form, ...]
    """The original, where it is of this format, and the float variant."""
    pruned: tuple[Pruned, ...]
    """The pruned float graphs, on which candidates are tried too."""
    open: Open
    nodes: tuple[WeightedNode, ...] = ()
    """Of the optimised ONNX graph."""
    tflite_nodes: tuple[str, ...] = ()
    """Of the TFLite file."""
    tflite_ends: tuple[tuple[str, ...], ...] = ()
    """Those of them that are left in float on trial."""
    passes: tuple[PassOutcome, ...] = ()
    pruning: Pruning | None = None

    @property
    def float_variant(self) -> Form:
        """What may be shipped as it is."""
        return self.floats[-1]


def steps_of(side: Side, calibration: int, planned: Sequence[object]) -> int:
    """Return how many steps of progress the search is expected to take."""
    return calibration * (2 + len(side.pruned)) + len(planned)
