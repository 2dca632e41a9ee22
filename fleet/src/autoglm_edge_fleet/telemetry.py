"""Telemetry: batches kept for a bounded time, and what they say of each device."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from autoglm_edge_fleet.database import Database
from autoglm_edge_fleet.devices import saw
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.histogram import merge
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.telemetry import SystemSample, TelemetryBatch


@dataclass(frozen=True)
class TelemetrySummary:
    """What one device measured in a span of time."""

    requests: int
    errors: int
    p50_us: float | None
    """Latency of its inference requests, in microseconds; None: there was none."""
    p99_us: float | None
    newest: SystemSample | None
    dropped_batches: int
    """That the device had to throw away since its agent started."""


def take_telemetry(database: Database, batch: TelemetryBatch) -> bool:
    """Keep a batch; returns False when it was there. Raises RefusedReport, StorageError."""
    saw(database, batch.device)
    with database.transaction() as connection:
        added = connection.execute(
            "INSERT OR IGNORE INTO telemetry (device, boot_id, sequence, received_at, batch) VALUES (?, ?, ?, ?, ?)",
            (batch.device, batch.boot_id, batch.sequence, time.time(), batch.to_bytes().decode()),
        )
        return added.rowcount == 1


def prune_telemetry(database: Database, now: float) -> int:
    """Delete what is too old or too much; returns how many batches. Raises StorageError."""
    with database.transaction() as connection:
        old = connection.execute(
            "DELETE FROM telemetry WHERE received_at < ?", (now - FLEET_LIMITS.telemetry_days * 86_400,)
        )
        surplus = connection.execute(
            "DELETE FROM telemetry WHERE id <= (SELECT id FROM telemetry ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (FLEET_LIMITS.telemetry_rows,),
        )
        return old.rowcount + surplus.rowcount


def telemetry_summaries(database: Database, since: float) -> dict[str, TelemetrySummary]:
    """Return what each device sent since a Unix time. Raises StorageError."""
    rows = database.read("SELECT device, batch FROM telemetry WHERE received_at >= ? ORDER BY id", (since,))
    batches: dict[str, list[TelemetryBatch]] = {}
    for row in rows:
        # Twice the limit of the wire: the stored form has its defaults written out.
        batches.setdefault(row[0], []).append(parse(TelemetryBatch, row[1].encode(), 2 * LIMITS.control_bytes))
    return {device: summarise(taken) for device, taken in batches.items()}


def summarise(batches: Iterable[TelemetryBatch]) -> TelemetrySummary:
    """Return what the batches of one device, oldest first, say together."""
    taken = list(batches)
    windows = [window for batch in taken for window in batch.inference]
    latency = merge(window.latency for window in windows)
    samples = [sample for batch in taken for sample in batch.samples]
    return TelemetrySummary(
        requests=sum(window.requests for window in windows),
        errors=sum(window.errors for window in windows),
        p50_us=latency.quantile(0.5),
        p99_us=latency.quantile(0.99),
        newest=samples[-1] if samples else None,
        dropped_batches=taken[-1].dropped_batches if taken else 0,
    )
