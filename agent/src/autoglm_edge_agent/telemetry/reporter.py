"""Takes samples, closes batches and sends them, each at its own pace."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.config import TelemetrySection
from autoglm_edge_agent.telemetry.spool import Spool
from autoglm_edge_agent.telemetry.system import take_sample
from autoglm_edge_agent.telemetry.windows import InferenceWindows
from autoglm_edge_protocol.errors import LinkError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.telemetry import SystemSample, TelemetryBatch

RETRY_S = 2.0

Send = Callable[[bytes], Awaitable[None]]
"""Publishes a batch and returns when the broker has it. Raises LinkError."""


class TelemetryReporter:
    """The telemetry of one device."""

    def __init__(self, device: str, section: TelemetrySection, storage: Path, send: Send) -> None:
        self._device = device
        self._section = section
        self._storage = storage
        self._send = send
        self._boot_id = uuid.uuid4().hex
        self._sequence = 0
        self._samples: list[SystemSample] = []
        self._spool = Spool(section.spool_bytes)
        self._spooled = asyncio.Event()
        self.windows = InferenceWindows(time.time())

    async def run(self) -> None:
        """Sample, batch and send, for ever."""
        sender = asyncio.create_task(self._send_spooled())
        try:
            next_batch = time.monotonic() + self._section.batch_interval_s
            while True:
                self._samples.append(await asyncio.to_thread(self._sample))
                if time.monotonic() >= next_batch or len(self._samples) >= LIMITS.telemetry_samples:
                    next_batch = time.monotonic() + self._section.batch_interval_s
                    self.close_batch()
                wait_s = min(self._section.sample_interval_s, max(0.05, next_batch - time.monotonic()))
                await asyncio.sleep(wait_s)
        finally:
            await cancel(sender)

    def close_batch(self) -> None:
        """Put what was measured since the last batch into the spool."""
        batch = TelemetryBatch(
            device=self._device,
            boot_id=self._boot_id,
            sequence=self._sequence,
            samples=tuple(self._samples),
            inference=self.windows.take(time.time()),
            dropped_batches=self._spool.dropped,
        )
        self._sequence += 1
        self._samples = []
        self._spool.put(batch)
        self._spooled.set()

    async def flush(self, timeout_s: float) -> None:
        """Send what is left, for at most so long."""
        self.close_batch()
        deadline = time.monotonic() + timeout_s
        while (batch := self._spool.oldest()) is not None and time.monotonic() < deadline:
            try:
                await asyncio.wait_for(self._send(batch[1]), max(0.1, deadline - time.monotonic()))
            except (LinkError, asyncio.TimeoutError, TimeoutError):
                return
            self._spool.sent(batch[0])

    def _sample(self) -> SystemSample:
        return take_sample(self._storage, self.windows.worker_rss_bytes)

    async def _send_spooled(self) -> None:
        while True:
            batch = self._spool.oldest()
            if batch is None:
                self._spooled.clear()
                await self._spooled.wait()
                continue
            try:
                await self._send(batch[1])
            except LinkError:
                await asyncio.sleep(RETRY_S)
            else:
                self._spool.sent(batch[0])
