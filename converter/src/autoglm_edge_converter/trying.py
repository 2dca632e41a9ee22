"""Trying candidates of any format: side by side, scored on the bench, remembered. How one is made is a workshop's.

The workers of the laboratory run several candidates at once. Results come in the order in which they were asked for
and do not depend on the number of workers. What the cache knows is not tried again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, TypeVar

from autoglm_edge_converter.cache import Cache
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.machine import versions
from autoglm_edge_converter.memory import ran_out
from autoglm_edge_converter.operators import libraries_in_use
from autoglm_edge_converter.processor import own_words
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.recipes import Candidate
from autoglm_edge_converter.records import from_json, to_json
from autoglm_edge_converter.search import Sensitivity, Trial
from autoglm_edge_converter.search.sensitivity import Group, Noise, rank_nodes
from autoglm_edge_converter.search.trials import Stage
from autoglm_edge_converter.twins import NO_TWINS, Twins
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol.digests import sha256_of_file

SHARES = {Stage.TUNE: 0.4, Stage.RANK: 0.7, Stage.CLIMB: 1.0}
"""When each stage of the search has to end, as a share of the time budget."""

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class Workshop(Protocol):
    """Makes the candidates of one format, of one or more float graphs that it has calibrated."""

    @property
    def suffix(self) -> str:
        """How the files' names end."""

    @property
    def prunings(self) -> Mapping[str, float]:
        """Fraction of the weights taken out, by float graph."""

    def usable(self, candidate: Candidate) -> bool:
        """Tell whether a candidate means something for its graph."""

    def work(self) -> Mapping[str, float]:
        """Return the multiplications of each node of the optimised graph."""

    def nodes(self, candidate: Candidate) -> Mapping[str, str]:
        """Return the operator of each node that the candidate may quantize, in the graph's order."""

    def activations(self, candidate: Candidate) -> Sequence[str]:
        """Return the tensors that a candidate rounds, those that lose most of their own signal by it first."""

    def digest(self, candidate: Candidate) -> str:
        """Return the SHA-256 of all that the candidate's bytes depend on besides itself and the samples."""

    def make(self, candidate: Candidate, chosen: Sequence[str]) -> bytes:
        """Build the file that has these nodes quantized. Not called by two threads at once; may raise anything.

        CandidateFailed where the file is made and is of no use."""


class Trying:
    """Tries candidates on a workbench, in threads as many as the laboratory has workers. Is `search.Experiments`."""

    def __init__(
        self,
        workshop: Workshop,
        bench: Workbench,
        progress: Progress,
        deadline: Deadline,
        cache: Cache,
        twins: Twins = NO_TWINS,
    ) -> None:
        self._workshop = workshop
        self._bench = bench
        self._progress = progress
        self._deadline = deadline
        self._cache = cache
        self.twins = twins
        """What stands in for candidates that are for other processors."""
        self._identity = identity(bench)
        # The quantizers change the level of the root logger while they work, so one thread at a time builds.
        self._building = threading.Lock()
        self._known: dict[str, tuple[Score, int]] = {}
        self.reused = 0
        """How many scores came from the cache."""

    @property
    def prunings(self) -> Mapping[str, float]:
        """Fraction of the weights taken out, by float graph."""
        return self._workshop.prunings

    def usable(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Return the candidates that mean something for their graphs."""
        return tuple(entry for entry in candidates if self._workshop.usable(entry))

    def work(self) -> Mapping[str, float]:
        """Return the multiplications of each node of the optimised graph."""
        return self._workshop.work()

    def attempt(self, candidates: Sequence[Candidate]) -> list[Trial]:
        """Build candidates and score them on the search samples; problems are findings."""
        return self._side_by_side(self._attempt, candidates)

    def rank(self, candidate: Candidate) -> tuple[Sensitivity, ...]:
        """Quantize one node at a time, in groups while there are many, and return the noise of each."""
        operators = self._workshop.nodes(candidate)

        def measure(groups: Sequence[Group]) -> list[Noise]:
            return self._side_by_side(lambda group: self._alone(candidate, group), groups)

        found = rank_nodes(list(operators), measure, lambda: self.out_of_time(Stage.RANK))
        return tuple(
            Sensitivity(name, operators[name], noise.sqnr_db, noise.value, noise.problem)
            for name, noise in found.items()
        )

    def activations(self, candidate: Candidate) -> Sequence[str]:
        """Return the tensors that a candidate rounds, those that lose most of their own signal by it first."""
        return self._workshop.activations(candidate)

    def noise(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the signal to noise of the answers in dB on the samples of sensitivity; -inf where one failed."""
        return self._side_by_side(self._signal_to_noise, candidates)

    def out_of_time(self, stage: Stage) -> bool:
        """Tell whether a stage of the search has used up its time."""
        return self._deadline.passed(SHARES[stage])

    def write(self, candidate: Candidate, name: str) -> Path:
        """Build a candidate and write it into the scratch directory. Raises CandidateFailed, OSError."""
        return self._write(candidate, None, name)

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
        candidate = self.twins.judged_as(candidate) or candidate
        question = [self._identity, self._workshop.digest(candidate), asdict(candidate), only, list(samples)]
        key = json.dumps(question, sort_keys=True)
        if key in self._known:
            return self._known[key]
        known = self._remembered(key)
        if known is not None:
            self.reused += 1
            self._known[key] = known
            return known
        path = self._write(candidate, only, f"candidate-{hashlib.sha256(key.encode()).hexdigest()[:16]}")
        try:
            found, size_bytes = self._bench.score(path, samples), path.stat().st_size
        finally:
            path.unlink()
        self._known[key] = found, size_bytes
        self._cache.put(key, to_json(Trial(candidate, found, size_bytes)))
        return found, size_bytes

    def _remembered(self, key: str) -> tuple[Score, int] | None:
        known = self._cache.get(key)
        if known is None:
            return None
        try:
            trial = from_json(Trial, known)
        except ValueError:
            return None
        return None if trial.score is None else (trial.score, trial.size_bytes)

    def _write(self, candidate: Candidate, only: Group | None, name: str) -> Path:
        path = self._bench.scratch / f"{name}{self._workshop.suffix}"
        path.write_bytes(self._make(candidate, only))
        return path

    def _make(self, candidate: Candidate, only: Group | None) -> bytes:
        names = self._workshop.nodes(candidate)
        chosen = list(only) if only is not None else [name for name in names if name not in candidate.float_nodes]
        with self._building:
            try:
                return self._workshop.make(candidate, chosen)
            except CandidateFailed:
                raise
            except Exception as error:
                # The quantizers raise what they like on graphs that they cannot do; each is a finding.
                reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
                reason = "not enough memory" if ran_out(error) else reason
                raise CandidateFailed(f"the quantizer fails: {reason}") from None


def identity(bench: Workbench) -> str:
    """Return the digest of all that a score depends on besides the candidate and its graph."""
    libraries = [sha256_of_file(Path(path)) for path in libraries_in_use()]
    # Answers of 8-bit kernels depend on the processor.
    facts = [versions(), own_words(), repr(bench.task), bench.parts.calibration, libraries]
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
