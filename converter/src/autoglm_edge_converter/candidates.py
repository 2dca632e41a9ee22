"""Building and scoring INT8 candidates of one float model. Calibration runs once; every candidate shares it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from autoglm_edge_converter.equalise import equalise
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.inspection import WeightedNode, with_followers
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.quantize import quantize
from autoglm_edge_converter.ranges import Observation, observe, tensors_of
from autoglm_edge_converter.recipes import Candidate, Recipe
from autoglm_edge_converter.search import Sensitivity, Trial, noisiest_first
from autoglm_edge_converter.workbench import Workbench


@dataclass(frozen=True)
class _Calibrated:
    """A float graph and what was seen in it."""

    proto: onnx.ModelProto
    observation: Observation


class Candidates:
    """Tries candidates of one optimised float model on a workbench."""

    def __init__(
        self, proto: onnx.ModelProto, nodes: Sequence[WeightedNode], bench: Workbench, progress: Progress
    ) -> None:
        self._nodes = tuple(nodes)
        self._bench = bench
        self._progress = progress
        self._plain = self._calibrate(proto)
        even = equalise(proto, nodes, self._plain.observation)
        self._even = None if len(even.graph.node) == len(proto.graph.node) else self._calibrate(even)

    def _calibrate(self, proto: onnx.ModelProto) -> _Calibrated:
        nodes = with_followers(proto.graph, [node.name for node in self._nodes])
        axes = _channel_axes(proto.graph, self._nodes)
        feeds = [self._bench.feeds[index] for index in self._bench.parts.calibration]
        seen = observe(proto, tensors_of(proto.graph, nodes), axes, feeds, lambda: self._progress.step("calibrate"))
        return _Calibrated(proto, seen)

    def usable(self, recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
        """Return the recipes that mean something for this model."""
        return tuple(recipe for recipe in recipes if not recipe.equalise or self._even is not None)

    def work(self) -> dict[str, float]:
        """Return the multiplications of each node on the first sample."""
        outputs = {node.name: node.output[0] for node in self._plain.proto.graph.node}
        return {node.name: self._multiplications(node, outputs[node.name]) for node in self._nodes}

    def _multiplications(self, node: WeightedNode, output: str) -> float:
        activation = self._plain.observation.get(output)
        size = math.prod(activation.shape) if activation else 0
        columns = node.weight_shape[0] if node.operator == "Conv" else node.weight_shape[-1]
        return size * math.prod(node.weight_shape) / max(1, columns)

    def build(self, candidate: Candidate, name: str) -> Trial:
        """Build a candidate, write it as `name` and score it on the search samples; problems are findings."""
        chosen = [node.name for node in self._nodes if node.name not in candidate.float_nodes]
        try:
            found, size_bytes = self._score(candidate.recipe, chosen, name, self._bench.parts.search)
        except CandidateFailed as error:
            return Trial(candidate, None, problem=str(error))
        return Trial(candidate, found, size_bytes)

    def attempt(self, candidate: Candidate) -> Trial:
        """Try a candidate of the search."""
        trial = self.build(candidate, "candidate")
        self._progress.step(str(candidate))
        return trial

    def rank(self, recipe: Recipe) -> tuple[Sensitivity, ...]:
        """Quantize one node at a time and return the nodes, the noisiest first."""
        return noisiest_first([self._alone(node, recipe) for node in self._nodes])

    def _alone(self, node: WeightedNode, recipe: Recipe) -> Sensitivity:
        self._progress.step(f"sensitivity of {node.name}")
        try:
            found, _ = self._score(recipe, [node.name], "candidate", self._bench.sensitivity_samples)
        except CandidateFailed as error:
            return Sensitivity(node.name, node.operator, None, 0.0, str(error))
        if not found.finite:
            return Sensitivity(node.name, node.operator, None, 0.0, "gives NaN or another shape")
        return Sensitivity(node.name, node.operator, found.sqnr_db, found.value)

    def _score(self, recipe: Recipe, chosen: Sequence[str], name: str, samples: Sequence[int]) -> tuple[Score, int]:
        calibrated = self._even if recipe.equalise and self._even is not None else self._plain
        try:
            proto = quantize(calibrated.proto, recipe, chosen, calibrated.observation)
        except Exception as error:
            # The quantizer raises what it likes on graphs that it cannot do; each is a finding about this candidate.
            reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
            raise CandidateFailed(f"the quantizer fails: {reason}") from None
        path = self._bench.write(proto, name)
        return self._bench.score(path, samples), path.stat().st_size


def _channel_axes(graph: onnx.GraphProto, nodes: Sequence[WeightedNode]) -> dict[str, int]:
    facts = {node.name: node for node in nodes}
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.name in facts:
            axes[node.input[0]] = axes[node.output[0]] = facts[node.name].channel_axis
    return axes
