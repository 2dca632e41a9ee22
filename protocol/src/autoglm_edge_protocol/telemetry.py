"""Telemetry: system samples and inference statistics of one device, sent in batches."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from autoglm_edge_protocol.documents import Count, Document, Part
from autoglm_edge_protocol.histogram import Histogram
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import DeviceName


class SystemSample(Part):
    """The board at one moment. A figure that the board does not tell is None."""

    at: float
    """Unix time in seconds by the device's clock."""
    cpu_percent: float | None = None
    """All cores together, 0 to 100."""
    load_1m: float | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    disk_free_bytes: Count | None = None
    temperature_c: float | None = None
    """The hottest sensor."""
    agent_rss_bytes: Count | None = None
    worker_rss_bytes: Count | None = None


class InferenceWindow(Part):
    """Requests that one variant answered in a span of time."""

    bundle: str
    variant: str
    started_at: float
    duration_s: float = Field(ge=0)
    requests: Count
    errors: Count
    latency: Histogram
    """Time from the complete request to the finished result, in microseconds."""


class TelemetryBatch(Document):
    """What was measured since the last batch; (device, boot_id, sequence) is unique, a repeated batch counts once."""

    kind: ClassVar[str] = "telemetry batch"

    device: DeviceName
    boot_id: str = Field(max_length=64)
    sequence: Count
    samples: tuple[SystemSample, ...] = Field(default=(), max_length=LIMITS.telemetry_samples)
    inference: tuple[InferenceWindow, ...] = Field(default=(), max_length=64)
    dropped_batches: Count = 0
    """Batches that had to be thrown away since the agent started, because the spool was full."""
