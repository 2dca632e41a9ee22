"""Which ways to run a variant are worth measuring. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autoglm_edge_agent.inference.options import Optimisation, Plan, SessionOptions

MOST = 32
"""Candidates in all; the first of each provider come first, so that none is left out altogether."""
_ON_CORES = frozenset({"cpu", "xnnpack", "acl"})
"""Providers that calculate on the processor's cores: only there does the number of threads matter."""
_OPTIMISATIONS: Mapping[str, tuple[Optimisation, ...]] = {"onnxruntime": ("all", "basic")}
_SPINS = frozenset({"onnxruntime"})


def candidates(providers: Mapping[str, Sequence[str]], most_threads: int) -> tuple[Plan, ...]:
    """Return the plans to try, the plainest first; `providers` are those of each usable runtime, by its name."""
    ways = [list(_ways(name, provider, most_threads)) for name, listed in providers.items() for provider in listed]
    longest = max(map(len, ways), default=0)
    in_turns = [way[turn] for turn in range(longest) for way in ways if turn < len(way)]
    return tuple(in_turns[:MOST])


def _ways(runtime: str, provider: str, most_threads: int) -> Iterator[Plan]:
    for optimisation in _OPTIMISATIONS.get(runtime, ("all",)):
        for threads in _threads(most_threads) if provider in _ON_CORES else (1,):
            for spinning in (False, True) if runtime in _SPINS and threads > 1 else (False,):
                options = SessionOptions(
                    provider=provider, threads=threads, spinning=spinning, optimisation=optimisation
                )
                yield Plan(runtime=runtime, options=options)


def _threads(most: int) -> list[int]:
    """Return 1, 2, 4, ... and the highest number."""
    found = [1]
    while found[-1] * 2 < most:
        found.append(found[-1] * 2)
    return found if most <= 1 else [*found, most]
