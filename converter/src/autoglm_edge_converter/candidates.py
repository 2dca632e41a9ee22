"""Building and scoring candidates of one or more float graphs. Calibration runs once for each; candidates share it.

The workers of the laboratory run several candidates at once. Results come in the order in which they were asked for
and do not depend on the number of workers. What the cache knows is not tried again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import onnx

from autoglm_edge_converter.bias import correct_biases
from autoglm_edge_converter.build import build
from autoglm_edge_converter.cache import Cache, NoCache
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.equalise import equalise
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.float_graphs import Calibrated, FloatGraph, calibrate
from autoglm_edge_converter.machine import versions
from autoglm_edge_converter.operators import libraries_in_use
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.recipes import OPTIMISED, Candidate
from autoglm_edge_converter.records import from_json, to_json
from autoglm_edge_converter.search import Sensitivity, Trial
from autoglm_edge_converter.search.sensitivity import Group, Noise, rank_nodes
from autoglm_edge_converter.search.trials import Stage
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol.digests import sha256_of_file

SHARES = {Stage.TUNE: 0.4, Stage.RANK: 0.7, Stage.CLIMB: 1.0}
"""When each stage of the search has to end, as a share of the time budget."""

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class Candidates:
    """Tries candidates on a workbench, in threads as many as the laboratory has workers. Is `search.Experiments`."""

    def __init__(
        self,
        graphs: Sequence[FloatGraph],
        bench: Workbench,
        progress: Progress,
        deadline: Deadline,
        cache: Cache = NoCache(),  # noqa: B008
    ) -> None:
        self._bench = bench
        self._progress = progress
        self._deadline = deadline
        self._cache = cache
        self._identity = identity(bench)
        # The quantizer changes the level of the root logger while it works, so one thread at a time builds.
        self._building = threading.Lock()
        self.prunings = {graph.name: graph.pruning for graph in graphs}
        """Fraction of the weights taken out, by float graph."""
        self._plain: dict[str, Calibrated] = {}
        self._even: dict[str, Calibrated] = {}
        for graph in graphs:
            self._prepare(graph)
        self._known: dict[str, tuple[Score, int]] = {}
        self.reused = 0
        """How many scores came from the cache."""

    def _prepare(self, graph: FloatGraph) -> None:
        feeds = [self._bench.feeds[index] for index in self._bench.parts.calibration]

        def seen() -> None:
            self._progress.step(f"calibrate {graph.name}")

        plain = self._plain[graph.name] = calibrate(graph.proto, feeds, seen)
        even = equalise(graph.proto, plain.nodes, plain.observation)
        if len(even.graph.node) != len(graph.proto.graph.node):
            self._even[graph.name] = calibrate(even, feeds, seen)

    def usable(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Return the candidates that mean something for their graphs."""
        return tuple(entry for entry in candidates if not entry.recipe.equalise or entry.graph in self._even)

    def work(self) -> dict[str, float]:
        """Return the multiplications of each node of the optimised graph."""
        return self._plain[OPTIMISED].work()

    def attempt(self, candidates: Sequence[Candidate]) -> list[Trial]:
        """Build candidates and score them on the search samples; problems are findings."""
        return self._side_by_side(self._attempt, candidates)

    def rank(self, candidate: Candidate) -> tuple[Sensitivity, ...]:
        """Quantize one node at a time, in groups while there are many, and return the noise of each."""
        facts = {node.name: node for node in self._of(candidate).nodes}

        def measure(groups: Sequence[Group]) -> list[Noise]:
            return self._side_by_side(lambda group: self._alone(candidate, group), groups)

        found = rank_nodes(list(facts), measure, lambda: self.out_of_time(Stage.RANK))
        return tuple(
            Sensitivity(name, facts[name].operator, noise.sqnr_db, noise.value, noise.problem)
            for name, noise in found.items()
        )

    def activations(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the tensors that a candidate rounds, those that lose most of their own signal by it first."""
        return self._of(candidate).rounded(candidate.recipe)

    def noise(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the signal to noise of the answers in dB on the samples of sensitivity; -inf where one failed."""
        return self._side_by_side(self._signal_to_noise, candidates)

    def out_of_time(self, stage: Stage) -> bool:
        """Tell whether a stage of the search has used up its time."""
        return self._deadline.passed(SHARES[stage])

    def write(self, candidate: Candidate, name: str) -> Path:
        """Build a candidate and write it into the scratch directory. Raises CandidateFailed, OSError."""
        return self._bench.write(self._build(candidate, None), name)

    def _side_by_side(self, do: Callable[[Asked], Found], asked: Sequence[Asked]) -> list[Found]:
        with ThreadPoolExecutor(len(self._bench.laboratory.workers)) as threads:
            futures = [threads.submit(do, entry) for entry in asked]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # An interruption must not wait for what has not begun.
                for future in futures:
                    future.cancel()
                raise

    def _attempt(self, candidate: Candidate) -> Trial:
        try:
            found, size_bytes = self._score(candidate, None, self._bench.parts.search)
        except CandidateFailed as error:
            return Trial(candidate, None, problem=str(error))
        finally:
            self._progress.step(str(candidate))
        return Trial(candidate, found, size_bytes)

    def _alone(self, candidate: Candidate, group: Group) -> Noise:
        name = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
        try:
            found, _ = self._score(candidate, group, self._bench.sensitivity_samples)
        except CandidateFailed as error:
            return Noise(None, 0.0, str(error))
        finally:
            self._progress.step(f"sensitivity of {name}")
        if not found.finite:
            return Noise(None, 0.0, "gives NaN or another shape")
        return Noise(found.sqnr_db, found.value)

    def _signal_to_noise(self, candidate: Candidate) -> float:
        try:
            found, _ = self._score(candidate, None, self._bench.sensitivity_samples)
        except CandidateFailed:
            return float("-inf")
        finally:
            self._progress.step(f"tune {candidate.tuned[-1].tensor if candidate.tuned else 'ranges'}")
        if not found.finite:
            return float("-inf")
        return float("inf") if found.sqnr_db is None else found.sqnr_db

    def _score(self, candidate: Candidate, only: Group | None, samples: Sequence[int]) -> tuple[Score, int]:
        """Score a candidate, or one that quantizes nothing but the nodes given. Raises CandidateFailed."""
        question = [self._identity, self._of(candidate).digest, asdict(candidate), only, list(samples)]
        key = json.dumps(question, sort_keys=True)
        if key in self._known:
            return self._known[key]
        known = self._cache.get(key)
        if known is not None:
            try:
                trial = from_json(Trial, known)
                if trial.score is not None:
                    self.reused += 1
                    self._known[key] = trial.score, trial.size_bytes
                    return self._known[key]
            except ValueError:
                pass
        proto = self._build(candidate, only)
        path = self._bench.write(proto, f"candidate-{hashlib.sha256(key.encode()).hexdigest()[:16]}")
        try:
            found, size_bytes = self._bench.score(path, samples), path.stat().st_size
        finally:
            path.unlink()
        self._known[key] = found, size_bytes
        self._cache.put(key, to_json(Trial(candidate, found, size_bytes)))
        return found, size_bytes

    def _build(self, candidate: Candidate, only: Group | None) -> onnx.ModelProto:
        calibrated = self._of(candidate)
        names = [node.name for node in calibrated.nodes]
        chosen = list(only) if only is not None else [name for name in names if name not in candidate.float_nodes]
        with self._building:
            try:
                proto = calibrated.proto
                if candidate.recipe.correct_bias:
                    nodes = [node for node in calibrated.nodes if node.name in chosen]
                    proto = correct_biases(proto, nodes, calibrated.observation)
                return build(proto, candidate.recipe, chosen, calibrated.observation, candidate.tuned)
            except Exception as error:
                # The quantizer raises what it likes on graphs that it cannot do; each is a finding.
                reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
                raise CandidateFailed(f"the quantizer fails: {reason}") from None

    def _of(self, candidate: Candidate) -> Calibrated:
        return (self._even if candidate.recipe.equalise else self._plain)[candidate.graph]


def identity(bench: Workbench) -> str:
    """Return the digest of all that a score depends on besides the candidate and its graph."""
    libraries = [sha256_of_file(Path(path)) for path in libraries_in_use()]
    facts = [versions(), repr(bench.task), bench.parts.calibration, libraries]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for arrays in (*bench.references, *([entry] for entry in bench.labels or ())):
        for array in arrays:
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    for feed in bench.feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
