"""Ranking nodes by the noise that each brings when it alone is quantized, in groups where there are many.

A network of a thousand nodes is first measured in groups of neighbours; the noisiest group is halved, again and again,
until every node that matters stands alone or the time is up. Members of a group share its noise by equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIRST_GROUPS = 48
HALVED_AT_ONCE = 2
"""Groups that are halved together; fixed, so that the result does not depend on the number of workers."""


@dataclass(frozen=True)
class Noise:
    """What quantizing a group of nodes did: noise in dB under the signal (None: none), the metric, or a problem."""

    sqnr_db: float | None
    value: float
    problem: str | None = None

    @property
    def power(self) -> float:
        """As a share of the signal's; infinite where the group cannot be quantized."""
        if self.problem is not None:
            return math.inf
        return 0.0 if self.sqnr_db is None else 10 ** (-self.sqnr_db / 10)


Group = tuple[str, ...]
Measure = Callable[[Sequence[Group]], Sequence[Noise]]


def rank_nodes(nodes: Sequence[str], measure: Measure, out_of_time: Callable[[], bool]) -> dict[str, Noise]:
    """Return the noise of each node, or its part of its group's where the time was up before it stood alone."""
    found: dict[Group, Noise] = {}
    groups = first_groups(nodes)
    for at in range(0, len(groups), HALVED_AT_ONCE):
        if found and out_of_time():
            break
        batch = groups[at : at + HALVED_AT_ONCE]
        found.update(zip(batch, measure(batch), strict=True))
    while not out_of_time():
        wide = sorted((group for group in found if len(group) > 1), key=lambda group: -found[group].power)
        if not wide:
            break
        halves = [half for group in wide[:HALVED_AT_ONCE] for half in halve(group)]
        measured = measure(halves)
        for group in wide[:HALVED_AT_ONCE]:
            del found[group]
        found.update(zip(halves, measured, strict=True))
    return {node: _part(noise, len(group)) for group, noise in found.items() for node in group}


def first_groups(nodes: Sequence[str]) -> list[Group]:
    """Cut the nodes, in their order, into at most `FIRST_GROUPS` groups of neighbours."""
    size = max(1, -(-len(nodes) // FIRST_GROUPS))
    return [tuple(nodes[at : at + size]) for at in range(0, len(nodes), size)]


def halve(group: Group) -> tuple[Group, Group]:
    """Return both halves of a group of two or more."""
    middle = len(group) // 2
    return group[:middle], group[middle:]


def _part(noise: Noise, members: int) -> Noise:
    if members == 1 or noise.sqnr_db is None:
        return noise
    return Noise(noise.sqnr_db + 10 * math.log10(members), noise.value, noise.problem)
