"""The search for an INT8 variant within the quality budget. Pure: candidates are tried through a function given.

every recipe, whole graph -> within the budget: the best of these
else: quantize one node at a time, which ranks the nodes by the noise they bring
      keep the k noisiest in float, k growing, each step measured (it is not monotonic), until within the budget
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.recipes import Candidate, Recipe

MOST_STEPS = 16
"""How many sizes of the float part are tried at most."""

INT8_COST = 0.3
"""What a multiplication costs on 8 bits, in units of one in float: between what VNNI and older CPUs reach."""

LEAST_GAIN = 0.1
"""A candidate that leaves so much in float that less than this part of the work is saved is not worth trying."""


@dataclass(frozen=True)
class Trial:
    """A candidate and what came of it: a score on the search samples, or the problem that it had."""

    candidate: Candidate
    score: Score | None
    size_bytes: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Sensitivity:
    """How much noise one node alone brings when quantized; None: none at all, or it could not be built."""

    node: str
    operator: str
    sqnr_db: float | None
    value: float
    problem: str | None = None


@dataclass(frozen=True)
class SearchResult:
    """The candidate found, None where no one was within the budget, and everything that was tried."""

    found: Trial | None
    trials: tuple[Trial, ...]
    sensitivities: tuple[Sensitivity, ...] = ()


Try = Callable[[Candidate], Trial]
Rank = Callable[[Recipe], Sequence[Sensitivity]]


def search(
    recipes: Sequence[Recipe], work: Mapping[str, float], max_drop: float, attempt: Try, rank: Rank
) -> SearchResult:
    """Find the candidate to ship. `work` holds the multiplications of each weighted node."""
    trials = [attempt(Candidate(recipe)) for recipe in recipes]
    whole = [trial for trial in trials if within(trial, max_drop)]
    if whole:
        return SearchResult(max(whole, key=_by_quality), tuple(trials))
    recipe = _best_recipe(trials)
    ranking = tuple(rank(recipe))
    for floats in ladder([entry.node for entry in ranking], work):
        trial = attempt(Candidate(recipe, floats))
        trials.append(trial)
        if within(trial, max_drop):
            return SearchResult(trial, tuple(trials), ranking)
    return SearchResult(None, tuple(trials), ranking)


def within(trial: Trial, max_drop: float) -> bool:
    """Tell whether a trial ran and keeps the budget; the allowance is for the division that made the fraction."""
    return trial.score is not None and trial.score.finite and trial.score.drop <= max_drop + 1e-9


def _by_quality(trial: Trial) -> tuple[float, float]:
    return trial.score.rank if trial.score is not None else (-1.0, 0.0)


def _best_recipe(trials: Sequence[Trial]) -> Recipe:
    return max(trials, key=_by_quality).candidate.recipe


def noisiest_first(entries: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """Order nodes for the ladder: those that cannot be quantized at all, then by falling noise."""

    def key(entry: Sensitivity) -> tuple[bool, float]:
        return entry.problem is None, float("inf") if entry.sqnr_db is None else entry.sqnr_db

    return tuple(sorted(entries, key=key))


def ladder(ranking: Sequence[str], work: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    """Give growing sets of nodes to keep in float, noisiest first, while quantizing the rest still saves work."""
    for count in float_counts(len(ranking)):
        floats = tuple(ranking[:count])
        if saving(floats, work) >= LEAST_GAIN:
            yield floats


def float_counts(nodes: int) -> tuple[int, ...]:
    """Return how many nodes to leave out, step by step: one by one at first, then in growing steps."""
    counts: list[int] = []
    count = 1
    while count < nodes and len(counts) < MOST_STEPS:
        counts.append(count)
        count += max(1, count // 4)
    return tuple(counts)


def saving(floats: Sequence[str], work: Mapping[str, float]) -> float:
    """Return the part of the float model's work that is saved, by the cost model above."""
    total = sum(work.values())
    quantized = total - sum(work.get(name, 0.0) for name in floats)
    return (1 - INT8_COST) * quantized / total if total > 0 else 0.0
