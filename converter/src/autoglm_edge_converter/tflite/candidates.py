"""Candidates of one or more float TFLite files. Calibration runs once for each; candidates share it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from autoglm_edge_converter.cache import Cache, NoCache
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import OPTIMISED, STATIC, Candidate
from autoglm_edge_converter.targets import Runtime
from autoglm_edge_converter.tflite.bias import correct_biases, correctable
from autoglm_edge_converter.tflite.calibration import Calibrated, calibrate
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.operators import unreadable
from autoglm_edge_converter.tflite.quantizer import quantize
from autoglm_edge_converter.trying import Trying
from autoglm_edge_converter.twins import NO_TWINS, Twins
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol.digests import sha256_of

_TOOLS = ("ai-edge-litert", "ai-edge-quantizer")


@dataclass(frozen=True)
class FloatFile:
    """A float TFLite file that candidates are made of, with the departure's ports."""

    name: str
    """`recipes.OPTIMISED`, or what a pruned one is called."""
    data: bytes
    pruning: float = 0.0
    """Fraction of the original's weights that was taken out."""


class TfliteWorkshop:
    """Makes TFLite candidates. Is a `trying.Workshop`."""

    suffix = ".tflite"

    def __init__(
        self,
        files: Sequence[FloatFile],
        bench: Workbench,
        progress: Progress,
        readers: Sequence[Runtime] = (),
    ) -> None:
        feeds = [bench.feeds[index] for index in bench.parts.calibration]
        self.prunings: Mapping[str, float] = {file.name: file.pruning for file in files}
        self._readers = readers
        self._calibrated: dict[str, Calibrated] = {}
        for file in files:
            self._calibrated[file.name] = calibrate(file.data, feeds, partial(progress.step, f"calibrate {file.name}"))

    def usable(self, candidate: Candidate) -> bool:
        """See `Workshop`: scaling channels alike is ONNX's, and so are unsigned activations."""
        recipe, calibrated = candidate.recipe, self._calibrated.get(candidate.graph)
        if calibrated is None or recipe.equalise or recipe.signed:
            return False
        return not recipe.correct_bias or bool(correctable(calibrated.prepared))

    def work(self) -> Mapping[str, float]:
        """See `Workshop`."""
        return self._calibrated[OPTIMISED].work()

    def nodes(self, candidate: Candidate) -> Mapping[str, str]:
        """See `Workshop`."""
        return {node.name: node.kind for node in self._calibrated[candidate.graph].prepared.nodes}

    def activations(self, candidate: Candidate) -> Sequence[str]:
        """See `Workshop`."""
        return self._calibrated[candidate.graph].rounded(candidate.recipe)

    def digest(self, candidate: Candidate) -> str:
        """See `Workshop`."""
        tools = {tool: version(tool) for tool in _TOOLS}
        readers = [str(reader) for reader in self._readers]
        facts = [self._calibrated[candidate.graph].digest, readers, tools]
        return sha256_of(json.dumps(facts, sort_keys=True).encode())

    def make(self, candidate: Candidate, chosen: Sequence[str]) -> bytes:
        """See `Workshop`."""
        calibrated = self._calibrated[candidate.graph]
        recipe, prepared = candidate.recipe, calibrated.prepared
        ranges = calibrated.ranges(recipe.ranges, candidate.tuned) if recipe.family == STATIC else {}
        if recipe.correct_bias:
            prepared = correct_biases(prepared, chosen, calibrated.observation)
        data = quantize(prepared, recipe, chosen, ranges)
        self._refuse_new_operators(data)
        return data

    def _refuse_new_operators(self, data: bytes) -> None:
        """Leave the place to the recipe that makes the same with older operators. Raises CandidateFailed."""
        model = read_model(data)
        for reader in self._readers:
            if found := unreadable(model, reader.name, reader.oldest):
                raise CandidateFailed(f"the oldest runtime of the targets cannot load it: {found[0]}")


class TfliteCandidates(Trying):
    """Tries TFLite candidates. `readers`: the oldest runtimes that have to load what is made."""

    def __init__(
        self,
        files: Sequence[FloatFile],
        bench: Workbench,
        progress: Progress,
        deadline: Deadline,
        cache: Cache = NoCache(),  # noqa: B008
        *,
        readers: Sequence[Runtime] = (),
        twins: Twins = NO_TWINS,
    ) -> None:
        workshop = TfliteWorkshop(files, bench, progress, readers)
        super().__init__(workshop, bench, progress, deadline, cache, twins)
