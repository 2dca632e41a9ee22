"""Float graphs that candidates are made of, and what the calibration samples showed in them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from autoglm_edge_converter.inspection import WeightedNode, weighted_nodes, with_followers
from autoglm_edge_converter.quantize import needless_boundaries, quantized_nodes
from autoglm_edge_converter.ranges import Activation, Observation, observe, own_noise, tensors_of
from autoglm_edge_converter.recipes import Recipe
from autoglm_edge_converter.tensors import Feed


@dataclass(frozen=True)
class FloatGraph:
    """A float model that candidates are made of."""

    name: str
    proto: onnx.ModelProto
    pruning: float = 0.0
    """Fraction of the original's weights that was taken out."""


@dataclass(frozen=True)
class Calibrated:
    """A float graph and what was seen in it."""

    proto: onnx.ModelProto
    nodes: tuple[WeightedNode, ...]
    observation: Observation

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the graph."""
        return hashlib.sha256(self.proto.SerializeToString(deterministic=True)).hexdigest()

    def work(self) -> dict[str, float]:
        """Return the multiplications of each weighted node on the last calibration sample's shapes."""
        outputs = {node.name: node.output[0] for node in self.proto.graph.node}
        return {node.name: _multiplications(node, self.observation.get(outputs[node.name])) for node in self.nodes}

    def rounded(self, recipe: Recipe) -> tuple[str, ...]:
        """Return the tensors that a whole candidate rounds, those that lose most of their own signal by it first."""
        graph = self.proto.graph
        chosen = quantized_nodes(graph, [node.name for node in self.nodes], recipe)
        kept = needless_boundaries(graph, chosen)
        names = [name for name in tensors_of(graph, chosen) if name in self.observation and name not in kept]
        return tuple(sorted(names, key=lambda name: -own_noise(self.observation[name], recipe.ranges)))


def calibrate(proto: onnx.ModelProto, feeds: Sequence[Feed], seen: Callable[[], None]) -> Calibrated:
    """Run a float model over the calibration samples; `seen` is called after each. Errors of the runtime pass."""
    nodes = weighted_nodes(proto.graph)
    wanted = tensors_of(proto.graph, with_followers(proto.graph, [node.name for node in nodes]))
    return Calibrated(proto, nodes, observe(proto, wanted, _channel_axes(proto.graph, nodes), feeds, seen))


def _channel_axes(graph: onnx.GraphProto, nodes: Sequence[WeightedNode]) -> dict[str, int]:
    facts = {node.name: node for node in nodes}
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.name in facts:
            axes[node.input[0]] = axes[node.output[0]] = facts[node.name].channel_axis
    return axes


def _multiplications(node: WeightedNode, output: Activation | None) -> float:
    size = math.prod(output.shape) if output else 0
    columns = node.weight_shape[0] if node.operator == "Conv" else node.weight_shape[-1]
    return size * math.prod(node.weight_shape) / max(1, columns)
