"""Whether what the director has signed is for this device, new, and not too late. Pure; signatures are checked before.

The time that counts (`reference_time`) is never earlier than anything that was signed and believed: so a board whose
clock says 1970 goes by the newest signature it has seen. A clock that is ahead makes things look expired, and nothing
more: it is never remembered, and once it is right again the same message is accepted.
"""

from __future__ import annotations

import math

from autoglm_edge_agent.trust.memory import Memory
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState, Reason
from autoglm_edge_protocol.versions import is_downgrade

LATEST_S = 253_402_300_799.0
"""The end of the year 9999, the last that TUF's dates can say."""


class Distrust(Exception):
    """What is not to be believed, and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code=code, message=message[:2000])


def reference_time(now: float, memory: Memory, signed_at: float = 0.0) -> float:
    """Return the Unix time in seconds by which expiries are judged, between 1970 and 9999 whatever the clock says."""
    clock = now if math.isfinite(now) else 0.0
    return min(LATEST_S, max(0.0, clock, memory.time_floor, signed_at))


def check_desired(desired: DesiredState, fleet: str, device: str, now: float, memory: Memory) -> None:
    """Check everything but what TUF says about the bundle. Raises Distrust."""
    _check_addressee(desired.fleet, desired.device, fleet, device)
    signed_at, expires_at = desired.signed_at or 0.0, desired.expires_at or 0.0
    if desired.generation < memory.generation:
        raise Distrust("replayed", f"generation {desired.generation} is over: {memory.generation} was accepted before")
    if desired.generation == memory.generation and signed_at < memory.signed_at:
        raise Distrust("replayed", f"generation {desired.generation} was accepted with a later signature before")
    time = reference_time(now, memory, signed_at)
    if time > expires_at:
        raise Distrust("expired", f"generation {desired.generation} {_too_late(time, expires_at)}")
    _check_version(desired, memory)


def check_command(command: Command, fleet: str, device: str, memory: Memory) -> None:
    """Check that a command is for this device and no replay. One that is too late gets an answer: not decided here.

    Raises Distrust.
    """
    _check_addressee(command.fleet or "", command.device, fleet, device)
    known = any(each.command_id == command.command_id for each in memory.commands)
    if not known and (command.signed_at or 0.0) <= memory.commands_floor:
        raise Distrust("replayed", f"the command {command.command_id} is older than those that are remembered")


def _check_addressee(fleet: str, device: str, our_fleet: str, our_device: str) -> None:
    if fleet != our_fleet:
        raise Distrust("wrong-fleet", f"it is signed for the fleet {fleet}, this is {our_fleet}")
    if device != our_device:
        raise Distrust("wrong-device", f"it is signed for {device}, this is {our_device}")


def _check_version(desired: DesiredState, memory: Memory) -> None:
    bundle = desired.bundle
    floor = memory.versions.get(bundle.name) if bundle else None
    if bundle is None or floor is None or desired.allow_downgrade or not is_downgrade(bundle.version, floor):
        return
    raise Distrust(
        "downgrade",
        f"{bundle.id} is older than {floor}, which was confirmed here; deploy it with a reason for going back",
    )


def _too_late(time: float, expires_at: float) -> str:
    return f"expired {max(time - expires_at, 1):.0f} s ago, by this device's clock or the newest signature it has seen"
