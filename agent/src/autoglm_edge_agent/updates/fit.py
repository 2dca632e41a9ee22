"""Which variant of a bundle fits this device. Pure."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.inference.runtimes import readers, usable_runtimes
from autoglm_edge_protocol.manifest import Manifest, Variant

MEMORY_SHARE = 0.75
"""A model may take this share of the board's memory, so that the rest of the system lives."""


@dataclass(frozen=True)
class Capabilities:
    """What a variant may use."""

    runtimes: Mapping[str, str]
    """Installed runtimes and their versions."""
    memory_bytes: int
    measures: bool = False
    """Whether it is measured here how fast a variant runs."""
    machine: str = field(default_factory=platform.machine)


MOST_CONTENDERS = 2
"""Variants that are fetched beside the chosen one, to be measured: each is a download."""


def choose_variant(manifest: Manifest, requested: str | None, capabilities: Capabilities) -> Variant:
    """Return the requested variant, or the fastest that fits, by the converter's figures; of equally fast ones the
    better.

    Raises Refusal (`unknown-variant`, `no-fitting-variant`) with what each variant lacks.
    """
    if requested is not None and manifest.variant(requested) is None:
        known = ", ".join(variant.id for variant in manifest.variants)
        raise Refusal("unknown-variant", f"{manifest.id} has no variant {requested}; it has {known}")
    candidates = [v for v in manifest.variants if requested in (None, v.id)]
    lacks = {variant.id: _lacking(variant, capabilities) for variant in candidates}
    fitting = [variant for variant in candidates if lacks[variant.id] is None]
    if not fitting:
        detail = "; ".join(f"{variant_id} {lack}" for variant_id, lack in lacks.items())
        raise Refusal("no-fitting-variant", f"no variant of {manifest.id} fits this device: {detail}")
    # max() keeps the first of equals, and the manifest has the better ones first.
    return max(fitting, key=lambda variant: variant.latency.speedup)


def contenders(
    manifest: Manifest, chosen: Variant, requested: str | None, capabilities: Capabilities
) -> tuple[Variant, ...]:
    """Return the variants that may run faster here than the chosen one, though the converter's figures say otherwise.

    Those are the ones of which its machine could not tell; none where nothing is measured here, or one was asked for.
    """
    if requested is not None or not capabilities.measures:
        return ()
    unknown = [v for v in manifest.variants if capabilities.machine in v.latency.unknown_on and v.id != chosen.id]
    fitting = [v for v in unknown if _lacking(v, capabilities) is None]
    # Further down the ladder less is left in float.
    return tuple(fitting[-MOST_CONTENDERS:])


def _lacking(variant: Variant, capabilities: Capabilities) -> str | None:
    needs = variant.needs
    if lack := _lacking_runtime(variant, capabilities.runtimes):
        return lack
    if needs.custom_ops and capabilities.machine not in needs.custom_ops:
        return f"has custom operators for {', '.join(needs.custom_ops)} only, this is {capabilities.machine}"
    if needs.memory_bytes is not None and needs.memory_bytes > MEMORY_SHARE * capabilities.memory_bytes:
        return (
            f"needs {needs.memory_bytes // 2**20} MiB of memory, "
            f"{MEMORY_SHARE:.0%} of this board's are {int(MEMORY_SHARE * capabilities.memory_bytes) // 2**20} MiB"
        )
    return None


def _lacking_runtime(variant: Variant, installed: Mapping[str, str]) -> str | None:
    if usable_runtimes(variant, installed):
        return None
    for name, oldest in readers(variant):
        if name in installed:
            return f"needs {name} {oldest}, {installed[name]} is installed"
    names = " or ".join((variant.needs.runtime, *variant.needs.alternatives))
    return f"needs the runtime {names} for {variant.format}"
