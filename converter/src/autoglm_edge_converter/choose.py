"""Choosing what is shipped, and why the rest is not. Pure: works on what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoglm_edge_converter.plan import FP32, INT8
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.results import Measured, Refusal
from autoglm_edge_converter.search import SearchResult, Trial


def choose(
    wanted: Sequence[str], measured: Mapping[str, Measured], refusals: Sequence[Refusal]
) -> tuple[Measured, ...]:
    """Return the variants to ship, the best quality first.

    The float variant is shipped when it was asked for, and whenever nothing else is good enough.
    """
    refused = {refusal.precision for refusal in refusals}
    shipped = [measured[name] for name in (FP32, INT8) if name in wanted and name in measured and name not in refused]
    return tuple(shipped) or (measured[FP32],)


def refuse_search(result: SearchResult | None, max_drop: float) -> Refusal | None:
    """Return why the search gives nothing to measure, None when it does."""
    if result is None:
        return Refusal(INT8, "the model has no convolution or matrix product with constant weights to quantize")
    if result.found is not None:
        return None
    best = _best(result.trials)
    if best is None or best.score is None:
        problem = next((trial.problem for trial in result.trials if trial.problem), "none gave finite answers")
        return Refusal(INT8, f"no candidate could be run: {problem}")
    return Refusal(
        INT8,
        f"the best of {len(result.trials)} candidates loses {best.score.drop:.2%} of {best.score.metric} on the search "
        f"samples, at most {max_drop:.2%} is allowed: raise --max-drop, or give more samples",
    )


def _best(trials: Sequence[Trial]) -> Trial | None:
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: trial.score.rank if trial.score else (0.0, 0.0), default=None)


def refuse_measured(int8: Measured, fp32: Measured, max_drop: float) -> Refusal | None:
    """Return why a measured INT8 form is not shipped, None when it is."""
    if not int8.quality.finite:
        return Refusal(INT8, "it gives NaN, infinity or another shape on held-back samples")
    if int8.quality.drop > max_drop + 1e-9:
        return Refusal(
            INT8,
            f"it loses {_percent(int8.quality)} of {int8.quality.metric} on {int8.quality.samples} held-back samples, "
            f"at most {max_drop:.2%} is allowed: raise --max-drop, or give more samples",
        )
    if int8.timing is None or fp32.timing is None:
        return Refusal(INT8, "its latency could not be measured")
    if int8.speedup < 1.0:
        return Refusal(INT8, f"it is slower than float here ({int8.speedup:.2f} times its speed)")
    return None


def _percent(score: Score) -> str:
    return f"{score.drop:.2%}"
