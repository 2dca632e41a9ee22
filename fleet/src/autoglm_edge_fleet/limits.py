"""Every bound of the fleet side in one place, so that neither devices nor time can make it grow without end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FleetLimits:
    """Bounds and periods of the fleet side."""

    devices: int = 10_000
    """Devices that are taken in; reports of further ones are refused."""
    queued_blocks: int = 256
    """Blocks that wait for one device: four full fetch requests."""
    telemetry_days: float = 7.0
    """Age at which telemetry is deleted."""
    telemetry_rows: int = 50_000
    """Batches kept over all devices; the oldest go first. About 2 kB each."""
    telemetry_window_s: float = 900.0
    """What the summary in `status` looks back on."""
    poll_s: float = 0.2
    """How often the daemon looks for changes that other processes made."""
    flush_s: float = 1.0
    """How often counters are written to the database."""
    renew_s: float = 60.0
    """How often it is looked whether signatures are due."""
    prune_s: float = 60.0
    """How often old telemetry is looked for."""
    resend_command_s: float = 30.0
    """After which an unanswered command goes again to a device that is online."""
    publish_timeout_s: float = 30.0
    """How long the broker may take to acknowledge one message."""
    largest_reported_generation: int = 2**52
    """Far above all that is ever issued, and far enough below the largest integer that newer ones can be."""
    largest_integer: int = 2**53 - 1
    """Of any number in a device's message: what JSON carries exactly everywhere, and what SQLite can hold."""


FLEET_LIMITS = FleetLimits()
