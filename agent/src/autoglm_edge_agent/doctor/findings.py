"""What the doctor found, as it is printed with `--json`."""

from __future__ import annotations

from pydantic import Field

from autoglm_edge_agent.doctor.accelerators import Accelerator
from autoglm_edge_protocol.documents import Part


class Clock(Part):
    """A group of cores with one clock."""

    cores: tuple[int, ...]
    now_mhz: int | None
    highest_mhz: int


class Temperature(Part):
    """One sensor."""

    part: str
    celsius: float


class Power(Part):
    """How the board is supplied; None or empty where it does not tell."""

    undervoltage_now: bool | None = None
    now: tuple[str, ...] = ()
    """What slows the board down at this moment."""
    since_boot: tuple[str, ...] = ()
    rails_mw: dict[str, int] = Field(default_factory=dict)
    """By name of the rail."""


class Ability(Part):
    """What one provider of a runtime did when it was tried."""

    provider: str
    works: bool
    placement: dict[str, int] = Field(default_factory=dict)
    why: str = ""


class Runtime(Part):
    """An installed runtime."""

    name: str
    version: str
    abilities: tuple[Ability, ...] = ()
    why: str = ""
    """Why it could not even be loaded."""


class Findings(Part):
    """All of it."""

    agent_version: str
    board: str
    compatible: tuple[str, ...] = ()
    processor: str = ""
    system: str
    architecture: str
    cores: int
    memory_bytes: int
    available_bytes: int
    clocks: tuple[Clock, ...] = ()
    temperatures: tuple[Temperature, ...] = ()
    power: Power = Power()
    accelerators: tuple[Accelerator, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    advice: tuple[str, ...] = ()
