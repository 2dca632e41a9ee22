"""Choosing what is shipped, and why the rest is not. Pure: works on what was measured.

Candidates within the budget on the search samples are timed in turns. Who is preferred follows from those figures; the
acceptance samples then only say yes or no, in the order of preference, to few candidates. The evaluation samples
report; they take back only what they prove to be over the budget, and nothing takes its place (docs/adr/0009).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.recipes import HALF, STATIC, WEIGHTS, Candidate
from autoglm_edge_converter.results import Considered
from autoglm_edge_converter.search import Demand, SearchResult, Trial, safe, within
from autoglm_edge_converter.search.trials import best, by_quality, standard_error

AS_FAST = 0.08
"""Processor times that differ by less are taken as equal, and quality decides: timing is no more exact than that."""

WORTHWHILE = 0.9
"""A variant that is shipped for its size has at most this part of the size of what is shipped anyway."""

WORTHWHILE_IF_SLOWER = 0.75
"""The same for a variant that is slower than float."""

NOT_TRIED = "not tried"
"""How the problem of a trial begins whose candidate another one stands for."""

CLEARER_DB = 6.0
"""Half the amplitude of the noise: less is no reason to ship one more variant, or to judge one where all failed."""

MOST_VARIANTS = 5
"""How many variants a bundle holds at most for one format, float included."""

TIMING_ERROR = 0.03
"""A variant that is slower than float by more is slower, however noisy the comparison was."""

MOST_MIXED = 4
"""How many steps of the ladder are timed at most."""


@dataclass(frozen=True)
class Limits:
    """What a variant has to keep."""

    max_drop: float
    max_size_bytes: int | None = None
    max_latency_us: float | None = None

    def exceeded(self, size_bytes: int, timing: Timing | None) -> str | None:
        """Return the options that a form is over, with its figures; None where it keeps them, or was not timed."""
        over = []
        if self.max_size_bytes is not None and size_bytes > self.max_size_bytes:
            over.append(f"--max-size ({size_bytes:,} bytes)")
        if self.max_latency_us is not None and timing is not None and timing.wall_us > self.max_latency_us:
            over.append(f"--max-latency-ms ({timing.wall_us / 1000:.3g} ms)")
        return " and ".join(over) or None

    def broken_by(self, entry: Considered) -> str | None:
        """Return why a timed candidate is not shipped; the time here says nothing of what other processors run."""
        timing = None if entry.trial.candidate.recipe.everything else entry.timing
        over = self.exceeded(entry.size_bytes, timing)
        return None if over is None else f"it is over {over}"


def shortlist(trials: Sequence[Trial], max_drop: float) -> tuple[Trial, ...]:
    """Return the trials within the budget that are worth timing.

    Those are the best whole one of each float graph and family, and the mixed ones with the fewest nodes in float.
    Equalised ones are a family of their own, since they carry multiplications that cost time, and so are those
    without followers, which go to float and back more often, those with integers throughout, which other processors
    run, and each kind of numbers, which has kernels of its own.
    """
    kept = [trial for trial in trials if within(trial, max_drop)]
    groups: dict[tuple[object, ...], list[Trial]] = {}
    for trial in kept:
        if not trial.candidate.float_nodes:
            recipe = trial.candidate.recipe
            numbers = (recipe.weights, recipe.signed)
            ways = (recipe.equalise, recipe.followers, recipe.everything)
            kind = (trial.candidate.graph, recipe.family, *ways, *numbers)
            groups.setdefault(kind, []).append(trial)
    whole = [top for top in map(best, groups.values()) if top is not None]
    by_floats: dict[tuple[str, ...], list[Trial]] = {}
    for trial in kept:
        if trial.candidate.float_nodes:
            by_floats.setdefault(trial.candidate.float_nodes, []).append(trial)
    tops = [top for top in map(best, by_floats.values()) if top is not None]
    mixed = sorted(tops, key=lambda trial: len(trial.candidate.float_nodes))
    sure = [trial for trial in mixed if safe(trial, max_drop)]
    chosen = [*mixed[: MOST_MIXED - 1], *sure[:1]]
    return tuple(dict.fromkeys([*whole, *chosen]))


def worth_judging(trials: Sequence[Trial], demand: Demand, judged: Collection[Candidate]) -> tuple[Trial, ...]:
    """Return the trials that were not judged before; of the static ones, those whose answers are clear enough."""
    fresh = [trial for trial in trials if trial.candidate not in judged]
    return tuple(trial for trial in fresh if trial.candidate.recipe.family != STATIC or demand.is_clear(trial))


def clearest_db(trials: Sequence[Trial]) -> float:
    """Return the signal to noise of the static trial whose worst output has the most; minus infinity for none."""
    known = [t.score.sqnr_db for t in trials if t.score is not None and t.candidate.recipe.family == STATIC]
    return max((value for value in known if value is not None), default=-math.inf)


NOTICEABLE = 1.05
"""A variant that is shipped for its speed is so many times as fast as float; less is within what timing tells."""


def fastest_first(entries: Sequence[Considered]) -> tuple[Considered, ...]:
    """Order 8-bit candidates that beat float: those about as fast as the fastest by quality, then the others by speed.

    All of them keep the budget on the search samples; the acceptance samples decide whether a fast one does.
    """
    able = [
        entry for entry in entries if entry.speedup >= NOTICEABLE and entry.trial.candidate.recipe.family not in _SIZE
    ]
    if not able:
        return ()
    top = max(entry.speedup for entry in able)
    close = [entry for entry in able if entry.speedup >= top * (1 - AS_FAST)]
    rest = [entry for entry in able if entry not in close]
    ranked = sorted(close, key=lambda entry: by_quality(entry.trial), reverse=True)
    return (*ranked, *sorted(rest, key=lambda entry: -entry.speedup))


_SIZE = (WEIGHTS, HALF)


def is_slower(entry: Considered) -> bool:
    """Tell whether a candidate is slower than float, by more than the noise of that comparison explains."""
    return entry.speedup < 1.0 - min(entry.noise, TIMING_ERROR)


def smallest_first(
    entries: Sequence[Considered], than_bytes: int, slower_allowed: bool = False
) -> tuple[Considered, ...]:
    """Order the candidates that are worth shipping for their size alone, the smallest first.

    Slower ones than float are among them only where a user asked for size, and so for them.
    """

    def worthwhile(entry: Considered) -> bool:
        if is_slower(entry):
            return slower_allowed and entry.size_bytes <= than_bytes * WORTHWHILE_IF_SLOWER
        return entry.size_bytes <= than_bytes * WORTHWHILE

    return tuple(sorted(filter(worthwhile, entries), key=lambda entry: entry.size_bytes))


def steps_up(entries: Sequence[Considered], shipped: Sequence[Considered]) -> tuple[Considered, ...]:
    """Order the candidates that add a rung to the ladder: the fastest that answers clearly better than what is faster.

    Each is faster than float, and beats everything that is shipped on a side of its own: quality on the search samples,
    speed or size, by more than chance and timing explain.
    """
    able = [
        entry for entry in entries if entry.speedup >= NOTICEABLE and entry.trial.candidate.recipe.family not in _SIZE
    ]
    useful = [entry for entry in able if all(_beats(entry, other) for other in shipped)]
    return tuple(sorted(useful, key=lambda entry: -entry.speedup))


def _beats(entry: Considered, other: Considered) -> bool:
    faster = entry.speedup * (1 - AS_FAST) > other.speedup
    smaller = entry.size_bytes <= other.size_bytes * WORTHWHILE
    return faster or smaller or _clearer(entry.trial.score, other.trial.score)


def _clearer(score: Score | None, other: Score | None) -> bool:
    if score is None or other is None:
        return False
    gained = other.drop - score.drop
    if abs(gained) > max(standard_error(score), standard_error(other)):
        return gained > 0
    least_db = math.inf if score.sqnr_db is None else score.sqnr_db
    return least_db > (math.inf if other.sqnr_db is None else other.sqnr_db) + CLEARER_DB


def refuse_search(result: SearchResult | None, max_drop: float, integers: bool = False) -> str | None:
    """Return why the search gives no static candidate to measure, None when it does.

    `integers`: of those with integers throughout, otherwise of the others.
    """
    if result is None:
        return "the model has no convolution or matrix product with constant weights in float32 to quantize"
    recipes = ((trial, trial.candidate.recipe) for trial in result.trials)
    trials = [trial for trial, recipe in recipes if recipe.family == STATIC and recipe.everything == integers]
    if any(within(trial, max_drop) for trial in trials):
        return None
    top = best(trials)
    late = " before the time was up (--budget-s)" if result.out_of_time else ""
    scored = sum(trial.score is not None for trial in trials)
    if top is None or top.score is None:
        problems = (trial.problem for trial in trials if trial.problem and not trial.problem.startswith(NOT_TRIED))
        problem = next(problems, "none gave finite answers as long as the original's")
        return f"no candidate could be run: {problem}"
    return (
        f"the best of {scored} candidates{late} loses {top.score.drop:.2%} of {top.score.metric} on the "
        f"search samples, at most {max_drop:.2%} is allowed: raise --max-drop, or give more samples"
    )


def refuse_quality(score: Score, max_drop: float) -> str | None:
    """Return why a candidate fails on the acceptance samples, None when it does not."""
    if not score.finite:
        return "it gives NaN, infinity or another shape on acceptance samples"
    if score.drop > max_drop + 1e-9:
        return (
            f"it loses {score.drop:.2%} of {score.metric} on {score.samples} acceptance samples, "
            f"at most {max_drop:.2%} is allowed: raise --max-drop, or give more samples"
        )
    return None


def refuse_reported(score: Score, max_drop: float) -> str | None:
    """Return why what was accepted is not shipped after all: even the kind end of its interval is over the budget."""
    if not score.finite:
        return "it gives NaN, infinity or another shape on the final samples"
    if least_drop(score) > max_drop + 1e-9:
        return (
            f"it was accepted, but loses {score.drop:.2%} of {score.metric} on {score.samples} final samples, more "
            f"than chance explains with a budget of {max_drop:.2%}: give more samples, and more like those of use"
        )
    return None


def doubt_reported(score: Score, max_drop: float) -> str | None:
    """Return what to say of a variant that is shipped although its reported figure is over the budget."""
    if score.drop <= max_drop + 1e-9:
        return None
    return (
        f"over the budget on the {score.samples} final samples: it loses {score.drop:.2%} of {score.metric}, "
        f"{max_drop:.2%} is allowed; the acceptance samples agreed, and so few samples may differ by so much"
    )


def least_drop(score: Score) -> float:
    """Return the drop at the kind end of the 95 % interval; without one, two standard errors below the figure."""
    if score.interval is None:
        return score.drop - 2 * standard_error(score)
    lost = score.baseline - score.interval[1]
    return lost / abs(score.baseline) if abs(score.baseline) > 1e-12 else lost
