"""The findings as a table for people."""

from __future__ import annotations

from collections.abc import Iterator

from autoglm_edge_agent.doctor.accelerators import Accelerator
from autoglm_edge_agent.doctor.findings import Ability, Clock, Findings

Row = tuple[str, str]


def table(findings: Findings) -> str:
    """Return the text, a name and a value a line, advice at the end."""
    rows = list(_rows(findings))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}".rstrip() for name, value in rows]
    if findings.advice:
        lines += ["", *(f"! {line}" for line in findings.advice)]
    return "\n".join(lines)


def _rows(findings: Findings) -> Iterator[Row]:
    yield "board", findings.board
    if findings.compatible:
        yield "", ", ".join(findings.compatible)
    yield "system", f"{findings.system} {findings.architecture}, agent {findings.agent_version}"
    yield "processor", f"{findings.cores} cores" + (f", {findings.processor}" if findings.processor else "")
    yield "memory", f"{_mib(findings.memory_bytes)}, {_mib(findings.available_bytes)} available"
    yield from _named("clocks", (_clock(clock) for clock in findings.clocks))
    yield from _named("temperatures", (f"{reading.part} {reading.celsius:.1f} °C" for reading in findings.temperatures))
    yield from _named("power", _power(findings))
    yield from _named("accelerators", (_accelerator(item) for item in findings.accelerators))
    for runtime in findings.runtimes:
        tried = [_ability(ability) for ability in runtime.abilities] or [runtime.why]
        yield from _named(f"{runtime.name} {runtime.version}", iter(tried))
    if not findings.runtimes:
        yield "runtimes", "none"


def _named(name: str, values: Iterator[str]) -> Iterator[Row]:
    for value in values:
        yield name, value
        name = ""


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // 2**20} MiB"


def _clock(clock: Clock) -> str:
    cores = f"core {clock.cores[0]}" if len(clock.cores) == 1 else f"cores {', '.join(map(str, clock.cores))}"
    now = "unknown" if clock.now_mhz is None else f"{clock.now_mhz} MHz"
    return f"{cores}: {now} of {clock.highest_mhz} MHz"


def _power(findings: Findings) -> Iterator[str]:
    power = findings.power
    if power.undervoltage_now is not None:
        yield "under-voltage" if power.undervoltage_now else "voltage good"
    if power.now:
        yield f"now: {', '.join(power.now)}"
    if power.since_boot:
        yield f"since boot: {', '.join(power.since_boot)}"
    yield from (f"{rail} {milliwatts} mW" for rail, milliwatts in power.rails_mw.items())


def _accelerator(accelerator: Accelerator) -> str:
    load = "" if accelerator.load_percent is None else f", load {accelerator.load_percent:.0f} %"
    state = "ready" if accelerator.ready else f"lacks {accelerator.lacks}"
    return f"{accelerator.name}, {accelerator.where}: {state}{load}"


def _ability(ability: Ability) -> str:
    if not ability.works:
        return f"{ability.provider}: fails, {ability.why}"
    placed = ", ".join(f"{count} on {name}" for name, count in ability.placement.items())
    return f"{ability.provider}: works" + (f" ({placed})" if placed else f" ({ability.why})" if ability.why else "")
