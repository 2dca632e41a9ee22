"""Which ways to run a variant are worth measuring. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from autoglm_edge_agent.inference.options import Optimisation, Plan, SessionOptions

MOST = 32
"""Candidates in all; the first of each provider come first, so that none is left out altogether."""
_ON_CORES = frozenset({"cpu", "xnnpack", "acl"})
"""Providers that calculate on the processor's cores: only there does the number of threads matter."""
_OPTIMISATIONS: Mapping[str, tuple[Optimisation, ...]] = {"onnxruntime": ("all", "basic")}
_SPINS = frozenset({"onnxruntime"})

ProviderSettings = Mapping[str, Mapping[str, Mapping[str, str]]]
"""By runtime and provider, the provider's options."""
NO_SETTINGS: ProviderSettings = MappingProxyType({})


def candidates(
    providers: Mapping[str, Sequence[str]],
    most_threads: int,
    settings: ProviderSettings = NO_SETTINGS,
    *,
    strict: bool = False,
) -> tuple[Plan, ...]:
    """Return the plans to try, the plainest first.

    Args:
        providers: those that each usable runtime lists, by its name.
        most_threads: the highest number of them.
        settings: a provider that is in here and that its runtime does not list is tried, too.
        strict: whether what leaves part of the graph to another provider is of no use.
    """
    ways = []
    for runtime, listed in providers.items():
        known = settings.get(runtime, {})
        for provider in (*listed, *(name for name in known if name not in listed)):
            base = SessionOptions(provider=provider, provider_options=dict(known.get(provider, {})), strict=strict)
            ways.append(list(_ways(runtime, base, most_threads)))
    longest = max(map(len, ways), default=0)
    in_turns = [way[turn] for turn in range(longest) for way in ways if turn < len(way)]
    return tuple(in_turns[:MOST])


def _ways(runtime: str, base: SessionOptions, most_threads: int) -> Iterator[Plan]:
    for optimisation in _OPTIMISATIONS.get(runtime, ("all",)):
        for threads in _threads(most_threads) if base.provider in _ON_CORES else (1,):
            for spinning in (False, True) if runtime in _SPINS and threads > 1 else (False,):
                changed = {"threads": threads, "spinning": spinning, "optimisation": optimisation}
                yield Plan(runtime=runtime, options=base.model_copy(update=changed))


def _threads(most: int) -> list[int]:
    """Return 1, 2, 4, ... and the highest number."""
    found = [1]
    while found[-1] * 2 < most:
        found.append(found[-1] * 2)
    return found if most <= 1 else [*found, most]
