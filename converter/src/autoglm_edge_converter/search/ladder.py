"""Which nodes to keep in float, step by step: growing sets, those first that bring much noise for little work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autoglm_edge_converter.search.trials import Sensitivity

MOST_STEPS = 16
"""How many sizes of the float part are tried at most."""

INT8_COST = 0.3
"""What a multiplication costs on 8 bits, in units of one in float: between what VNNI and older CPUs reach."""

LEAST_GAIN = 0.1
"""A candidate that leaves so much in float that less than this part of the work is saved is not worth trying."""


def noisiest_first(entries: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """Order nodes for the report: those that cannot be quantized at all, then by falling noise."""
    return tuple(sorted(entries, key=lambda entry: -entry.noise))


def densest_first(entries: Sequence[Sensitivity], work: Mapping[str, float]) -> tuple[Sensitivity, ...]:
    """Order nodes by the noise that leaving them in float removes per multiplication that it costs."""
    least = max(work.values(), default=1.0) * 1e-6 + 1e-12
    return tuple(sorted(entries, key=lambda entry: -entry.noise / max(work.get(entry.node, 0.0), least)))


def ladder(ranking: Sequence[str], work: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    """Give growing sets of nodes to keep in float, in the order given, while quantizing the rest still saves work."""
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
    return (1 - INT8_COST) * (1 - share_of_work(floats, work)) if sum(work.values()) > 0 else 0.0


def share_of_work(nodes: Sequence[str], work: Mapping[str, float]) -> float:
    """Return the part of all multiplications that the nodes named do."""
    total = sum(work.values())
    return sum(work.get(name, 0.0) for name in nodes) / total if total > 0 else 0.0
