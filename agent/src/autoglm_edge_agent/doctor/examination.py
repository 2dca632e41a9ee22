"""Puts the findings together: the board's files, what the system tells, and each runtime tried."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from autoglm_edge_agent import __version__
from autoglm_edge_agent.doctor import identity
from autoglm_edge_agent.doctor.accelerators import accelerators
from autoglm_edge_agent.doctor.advice import advise
from autoglm_edge_agent.doctor.clocks import clocks
from autoglm_edge_agent.doctor.findings import Ability, Findings, Runtime, Temperature
from autoglm_edge_agent.doctor.power import power, throttled_word
from autoglm_edge_agent.doctor.tree import Tree
from autoglm_edge_agent.inference.abilities import providers_of, try_provider
from autoglm_edge_agent.inference.isolated import Outcome
from autoglm_edge_agent.inference.runtimes import FORMATS, installed_runtimes
from autoglm_edge_agent.telemetry.temperature import zones

_COMMAND_S = 5.0


@dataclass(frozen=True)
class System:
    """What is known without the board's files; theirs count where they tell the same."""

    name: str
    machine: str
    cores: int
    memory_bytes: int
    available_bytes: int
    model: str | None = None
    throttled: int | None = None


def this_system() -> System:
    """Return what this machine's system tells."""
    memory = psutil.virtual_memory()
    name = platform.system()
    return System(
        name,
        platform.machine(),
        os.cpu_count() or 1,
        memory.total,
        memory.available,
        _said("sysctl", "-n", "hw.model") if name == "Darwin" else None,
        throttled_word(_said("vcgencmd", "get_throttled") or ""),
    )


def look(root: Path, system: System) -> Findings:
    """Return what the board's files below `root` tell."""
    tree = Tree(root)
    total_bytes, available_bytes = identity.memory(tree) or (system.memory_bytes, system.available_bytes)
    readings = zones(root / "sys/devices/virtual/thermal")
    return Findings(
        agent_version=__version__,
        board=identity.board_name(tree) or system.model or f"{system.name} {system.machine}",
        compatible=identity.compatible(tree),
        processor=identity.processor(tree),
        system=system.name,
        architecture=system.machine,
        cores=system.cores,
        memory_bytes=total_bytes,
        available_bytes=available_bytes,
        clocks=clocks(tree),
        temperatures=tuple(Temperature(part=part, celsius=celsius) for part, celsius in readings),
        power=power(tree, system.throttled),
        accelerators=accelerators(tree, system.name, system.machine),
    )


async def examine(root: Path = Path("/"), system: System | None = None) -> Findings:
    """Look at the board and try its runtimes, each provider in a process of its own. Raises OSError."""
    found = look(root, system or this_system())
    runtimes = [await _tried(name, version) for name, version in installed_runtimes().items()]
    found = found.model_copy(update={"runtimes": tuple(runtimes)})
    return found.model_copy(update={"advice": advise(found)})


async def _tried(name: str, version: str) -> Runtime:
    listed = await providers_of(name)
    if listed.how != "answered":
        return Runtime(name=name, version=version, why=listed.why)
    if name not in FORMATS:
        # There is no model at hand that a third party's runtime could be tried with.
        return Runtime(name=name, version=version, abilities=tuple(_untried(provider) for provider in listed.value))
    tried = [_ability(provider, await try_provider(name, provider)) for provider in listed.value]
    return Runtime(name=name, version=version, abilities=tuple(tried))


def _untried(provider: str) -> Ability:
    return Ability(provider=provider, works=True, why="loads; not tried with a model")


def _ability(provider: str, outcome: Outcome) -> Ability:
    if outcome.how == "answered":
        return Ability(provider=provider, works=True, placement=outcome.value)
    return Ability(provider=provider, works=False, why=outcome.why)


def _said(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
