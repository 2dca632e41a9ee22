"""The search for 8-bit candidates that meet a demand: within the quality budget, with answers that are clear enough.

Pure: candidates are tried through `Experiments`.

every recipe of every float graph, whole graph
the best static one not safely within the budget:
    tune the ranges of its activations end to end, those with the most noise first
    quantize one node at a time, which ranks the nodes by the noise they bring
    keep k nodes in float, k growing, each step measured (it is not monotonic), until safely within the budget
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from autoglm_edge_converter.recipes import OPTIMISED, STATIC, Candidate
from autoglm_edge_converter.search.ladder import densest_first, ladder, noisiest_first
from autoglm_edge_converter.search.trials import Demand, SearchResult, Sensitivity, Stage, Trial, best
from autoglm_edge_converter.search.tuning import tune

MOST_TUNED = 6
"""How many activations are tuned at most: each costs eight candidates."""

STEPS_AT_ONCE = 2
"""Steps of the ladder that are tried together; fixed, so that the result does not depend on the number of workers."""


class Experiments(Protocol):
    """What the search can have done."""

    def attempt(self, candidates: Sequence[Candidate]) -> Sequence[Trial]:
        """Build and score candidates, in their order; problems are findings."""

    def rank(self, candidate: Candidate) -> Sequence[Sensitivity]:
        """Quantize one node at a time, else as the candidate says."""

    def activations(self, candidate: Candidate) -> Sequence[str]:
        """The quantized tensors of a candidate, those whose rounding loses most of their own signal first."""

    def noise(self, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Signal to noise of the answers in dB, on few samples."""

    def out_of_time(self, stage: Stage) -> bool:
        """Tell whether a stage has used up its share of the time."""


def search(
    candidates: Sequence[Candidate], work: Mapping[str, float], demand: Demand, experiments: Experiments
) -> SearchResult:
    """Try the candidates given, and refine the best static one where none safely meets the demand.

    `work` holds the multiplications of each weighted node of the optimised graph.
    """
    trials = list(experiments.attempt(candidates))
    start = best([trial for trial in trials if _refinable(trial)])
    sensitivities: tuple[Sensitivity, ...] = ()
    if not any(demand.safely_met(trial) for trial in trials if _quantized(trial)):
        origin = start.candidate if start else _first_refinable(candidates)
        if origin is not None:
            more, sensitivities = _refine(origin, start, work, demand, experiments)
            trials += more
    found = best([trial for trial in trials if _quantized(trial) and demand.met(trial)])
    return SearchResult(found, tuple(trials), sensitivities, experiments.out_of_time(Stage.CLIMB))


def _refinable(trial: Trial) -> bool:
    return _quantized(trial) and trial.candidate.graph == OPTIMISED


def _quantized(trial: Trial) -> bool:
    return _is_static(trial.candidate)


def _is_static(candidate: Candidate) -> bool:
    """Integers throughout are for accelerators: nothing of them may go back to float, and no CPU is served by them."""
    return candidate.recipe.family == STATIC and not candidate.recipe.everything


def _first_refinable(candidates: Sequence[Candidate]) -> Candidate | None:
    return next((entry for entry in candidates if _is_static(entry) and entry.graph == OPTIMISED), None)


def _refine(
    origin: Candidate, start: Trial | None, work: Mapping[str, float], demand: Demand, experiments: Experiments
) -> tuple[list[Trial], tuple[Sensitivity, ...]]:
    trials: list[Trial] = []
    if start is not None and not experiments.out_of_time(Stage.TUNE):
        tensors = experiments.activations(origin)[:MOST_TUNED]
        tuned = tune(origin, tensors, experiments.noise, lambda: experiments.out_of_time(Stage.TUNE))
        if tuned != origin:
            trials += experiments.attempt([tuned])
            top = best([start, *trials])
            origin = top.candidate if top is not None else origin
            if demand.safely_met(trials[-1]):
                return trials, ()
    if experiments.out_of_time(Stage.RANK):
        return trials, ()
    ranking = noisiest_first(experiments.rank(origin))
    trials += _climb(origin, ranking, work, demand, experiments)
    return trials, ranking


def _climb(
    origin: Candidate,
    ranking: Sequence[Sensitivity],
    work: Mapping[str, float],
    demand: Demand,
    experiments: Experiments,
) -> list[Trial]:
    """Keep more and more nodes in float, first those that cost little, then whatever is noisiest."""
    trials: list[Trial] = []
    tried: set[frozenset[str]] = set()
    for order in (densest_first(ranking, work), ranking):
        steps = [floats for floats in ladder([entry.node for entry in order], work) if frozenset(floats) not in tried]
        tried.update(map(frozenset, steps))
        for at in range(0, len(steps), STEPS_AT_ONCE):
            if experiments.out_of_time(Stage.CLIMB):
                return trials
            chosen = [replace(origin, float_nodes=floats) for floats in steps[at : at + STEPS_AT_ONCE]]
            trials += experiments.attempt(chosen)
            if any(demand.safely_met(trial) for trial in trials):
                return trials
    return trials
