"""What was measured of each way to run a variant, and which is the best. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_protocol.deployment import Acceleration, Execution, Reason
from autoglm_edge_protocol.documents import Part

ALIKE = 1.05
"""Scores that differ by less say nothing: of such candidates the one that was listed first wins, the plainer one."""


class Figures(Part):
    """Of one candidate on this board."""

    latency_p50_us: float = Field(gt=0)
    latency_p99_us: float = Field(gt=0)
    cpu_us: float = Field(gt=0)
    """Processor time of one run, all threads together."""
    memory_bytes: int = Field(gt=0)
    """Peak of the process."""
    runs: int = Field(ge=1)


class Weights(Part):
    """How much each figure counts: the score is the product of all, each to the power of its weight; less is better.

    With weights of 1 and 0.5, a candidate with half the latency may take four times the processor time.
    """

    latency_p50: float = Field(default=1.0, ge=0, le=10)
    latency_p99: float = Field(default=0.25, ge=0, le=10)
    cpu: float = Field(default=0.5, ge=0, le=10)
    memory: float = Field(default=0.1, ge=0, le=10)


class Measured(Part):
    """What came of one candidate."""

    plan: Plan
    figures: Figures | None = None
    """None: it was disqualified."""
    placement: dict[str, int] = Field(default_factory=dict)
    """Nodes of the graph by provider; empty where the runtime does not tell."""
    disqualified: str = ""

    @property
    def partial(self) -> bool:
        """Whether part of the graph ran elsewhere than was asked for."""
        provider = self.plan.options.provider
        return bool(provider and set(self.placement) - {provider})


def score(figures: Figures, weights: Weights) -> float:
    """Return the logarithm of the score: less is better."""
    terms = (
        (weights.latency_p50, figures.latency_p50_us),
        (weights.latency_p99, figures.latency_p99_us),
        (weights.cpu, figures.cpu_us),
        (weights.memory, figures.memory_bytes),
    )
    return sum(weight * math.log(value) for weight, value in terms)


def ranked(measured: Sequence[Measured], weights: Weights) -> tuple[Measured, ...]:
    """Return those that were not disqualified, the best first."""
    scores = [(score(m.figures, weights), m) for m in measured if m.figures is not None]
    if not scores:
        return ()
    alike = min(value for value, _ in scores) + math.log(ALIKE)
    first = next(m for value, m in scores if value <= alike)
    rest = sorted((entry for entry in scores if entry[1] is not first), key=lambda entry: entry[0])
    return (first, *(m for _, m in rest))


def best_of(variants: Sequence[Sequence[Measured]], weights: Weights) -> int | None:
    """Return which variant has the best way to run, by what was measured of each; of those alike the first.

    None where none could be run.
    """
    tops = [top[0] if (top := ranked(measured, weights)) else None for measured in variants]
    best = ranked([top for top in tops if top is not None], weights)
    return next((number for number, top in enumerate(tops) if best and top is best[0]), None)


def acceleration(measured: Sequence[Measured], weights: Weights) -> Acceleration | None:
    """Return what the fleet is told of it; None where nothing was tried."""
    if not measured:
        return None
    reasons = (f"{found.plan}: {found.disqualified}" for found in measured if found.disqualified)
    disqualified = tuple(Reason(code="candidate-disqualified", message=text[:500]) for text in reasons)
    best = ranked(measured, weights)
    return Acceleration(used=_execution(best[0]) if best else None, disqualified=disqualified[:32])


def _execution(found: Measured) -> Execution | None:
    figures, options = found.figures, found.plan.options
    if figures is None:
        return None
    return Execution(
        runtime=found.plan.runtime,
        provider=options.provider,
        threads=options.threads,
        latency_p50_us=figures.latency_p50_us,
        latency_p99_us=figures.latency_p99_us,
        cpu_us=figures.cpu_us,
        memory_bytes=figures.memory_bytes,
        placement=found.placement,
    )
