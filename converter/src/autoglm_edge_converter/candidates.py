"""Candidates of one or more float ONNX graphs. Calibration runs once for each; candidates share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoglm_edge_converter.bias import correct_biases
from autoglm_edge_converter.build import build
from autoglm_edge_converter.cache import Cache, NoCache
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.equalise import equalise
from autoglm_edge_converter.float_graphs import Calibrated, FloatGraph, calibrate
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import OPTIMISED, PAIRED, Candidate
from autoglm_edge_converter.trying import Trying
from autoglm_edge_converter.twins import NO_TWINS, Twins
from autoglm_edge_converter.workbench import Workbench


class OnnxWorkshop:
    """Makes ONNX candidates. Is a `trying.Workshop`."""

    suffix = ".onnx"

    def __init__(self, graphs: Sequence[FloatGraph], bench: Workbench, progress: Progress) -> None:
        self._feeds = [bench.feeds[index] for index in bench.parts.calibration]
        self._progress = progress
        self.prunings: Mapping[str, float] = {graph.name: graph.pruning for graph in graphs}
        self._plain: dict[str, Calibrated] = {}
        self._even: dict[str, Calibrated] = {}
        for graph in graphs:
            self._prepare(graph)

    def _prepare(self, graph: FloatGraph) -> None:
        def seen() -> None:
            self._progress.step(f"calibrate {graph.name}")

        plain = self._plain[graph.name] = calibrate(graph.proto, self._feeds, seen)
        even = equalise(graph.proto, plain.nodes, plain.observation)
        if len(even.graph.node) != len(graph.proto.graph.node):
            self._even[graph.name] = calibrate(even, self._feeds, seen)

    def usable(self, candidate: Candidate) -> bool:
        """See `Workshop`: scaling channels alike changes nothing in many graphs."""
        return not candidate.recipe.equalise or candidate.graph in self._even

    def work(self) -> Mapping[str, float]:
        """See `Workshop`."""
        return self._plain[OPTIMISED].work()

    def nodes(self, candidate: Candidate) -> Mapping[str, str]:
        """See `Workshop`."""
        return {node.name: node.operator for node in self._of(candidate).nodes}

    def activations(self, candidate: Candidate) -> Sequence[str]:
        """See `Workshop`."""
        return self._of(candidate).rounded(candidate.recipe)

    def digest(self, candidate: Candidate) -> str:
        """See `Workshop`."""
        return self._of(candidate).digest

    def make(self, candidate: Candidate, chosen: Sequence[str]) -> bytes:
        """See `Workshop`."""
        calibrated = self._of(candidate)
        proto = calibrated.proto
        if candidate.recipe.correct_bias:
            nodes = [node for node in calibrated.nodes if node.name in chosen]
            proto = correct_biases(proto, nodes, calibrated.observation, candidate.recipe.weights == PAIRED)
        built = build(proto, candidate.recipe, chosen, calibrated.observation, candidate.tuned)
        return bytes(built.SerializeToString(deterministic=True))

    def _of(self, candidate: Candidate) -> Calibrated:
        return (self._even if candidate.recipe.equalise else self._plain)[candidate.graph]


class Candidates(Trying):
    """Tries ONNX candidates."""

    def __init__(
        self,
        graphs: Sequence[FloatGraph],
        bench: Workbench,
        progress: Progress,
        deadline: Deadline,
        cache: Cache = NoCache(),  # noqa: B008
        twins: Twins = NO_TWINS,
    ) -> None:
        super().__init__(OnnxWorkshop(graphs, bench, progress), bench, progress, deadline, cache, twins)
