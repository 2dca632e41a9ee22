"""Batches that are not sent yet: bounded in bytes, oldest dropped first and counted.

In memory on purpose. Telemetry is not worth wearing out an SD card for; what a device has to prove, its answers to
commands, lies in the ledger on disk.
"""

from __future__ import annotations

from collections import deque

from autoglm_edge_protocol.telemetry import TelemetryBatch


class Spool:
    """A queue of encoded batches. It shrinks as it is emptied: nothing is kept for later use."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._batches: deque[tuple[int, bytes]] = deque()
        self._size_bytes = 0
        self.dropped = 0

    @property
    def size_bytes(self) -> int:
        """Bytes in the queue."""
        return self._size_bytes

    def put(self, batch: TelemetryBatch) -> None:
        """Add a batch; the oldest ones go when the limit is passed."""
        data = batch.to_bytes()
        self._batches.append((batch.sequence, data))
        self._size_bytes += len(data)
        while self._size_bytes > self._limit_bytes and self._batches:
            self._size_bytes -= len(self._batches.popleft()[1])
            self.dropped += 1

    def oldest(self) -> tuple[int, bytes] | None:
        """Return sequence number and bytes of the oldest batch, None when there is none."""
        return self._batches[0] if self._batches else None

    def sent(self, sequence: int) -> None:
        """Remove the oldest batch if it is still this one."""
        if self._batches and self._batches[0][0] == sequence:
            self._size_bytes -= len(self._batches.popleft()[1])
