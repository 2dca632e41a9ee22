"""What the owner should do about what was found. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from autoglm_edge_agent.doctor.findings import Ability, Findings

HOT_C = 80.0
"""A Raspberry Pi slows down from here on, a Jetson a little later."""
LOW_MEMORY = 0.1
_USUAL = {"cpu", "xnnpack"}


def advise(findings: Findings) -> tuple[str, ...]:
    """Return one line each, the most urgent first."""
    return (*_supply(findings), *_heat(findings), *_memory(findings), *_runtimes(findings), *_accelerators(findings))


def _supply(findings: Findings) -> Iterator[str]:
    power = findings.power
    if power.undervoltage_now or "under-voltage" in power.now:
        yield "the supply is too weak at this moment: use one with more current, and a short cable"
    elif "under-voltage" in power.since_boot:
        yield "the supply was too weak since boot: use one with more current, and a short cable"
    if {"throttled", "frequency capped", "soft temperature limit"} & {*power.now}:
        yield f"the board slows itself down ({', '.join(power.now)}): figures measured now are too low"


def _heat(findings: Findings) -> Iterator[str]:
    hottest = max(findings.temperatures, key=lambda reading: reading.celsius, default=None)
    if hottest is not None and hottest.celsius >= HOT_C:
        yield f"{hottest.part} has {hottest.celsius:.0f} °C: cool the board"


def _memory(findings: Findings) -> Iterator[str]:
    if findings.available_bytes < LOW_MEMORY * findings.memory_bytes:
        yield f"only {findings.available_bytes // 2**20} MiB of memory are available"


def _runtimes(findings: Findings) -> Iterator[str]:
    if not any(ability.works for runtime in findings.runtimes for ability in runtime.abilities):
        yield "no runtime works here: pip install 'autoglm-edge-agent[onnx]' or 'autoglm-edge-agent[litert]'"
    for runtime in findings.runtimes:
        for ability in runtime.abilities:
            if strangers := _elsewhere(ability):
                yield f"{runtime.name}/{ability.provider} leaves nodes to {', '.join(strangers)}"


def _elsewhere(ability: Ability) -> list[str]:
    if not ability.works or ability.provider in _USUAL:
        return []
    return sorted(set(ability.placement) - {ability.provider})


def _accelerators(findings: Findings) -> Iterator[str]:
    able = {f"{r.name}/{ability.provider}" for r in findings.runtimes for ability in r.abilities if ability.works}
    for accelerator in findings.accelerators:
        if not accelerator.ready:
            yield f"{accelerator.name} ({accelerator.where}) lacks {accelerator.lacks}"
        elif not accelerator.used_by:
            yield f"{accelerator.name} ({accelerator.where}): no runtime that comes with the agent uses it"
        elif not able & {*accelerator.used_by}:
            ways = ", ".join(accelerator.used_by)
            yield f"{accelerator.name} ({accelerator.where}) is not used: none of {ways} works"
