"""What was asked of the model and how long it took, as Triton's statistics extension tells it.

Written by the engine's thread and the server's; read by the server's. What is noted is summed up later, so that a
request pays for one entry in a list alone.
Source: Triton Inference Server, "Statistics Extension".
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

MOST_NOTED = 1024
"""Entries that wait to be summed up."""


@dataclass
class _Duration:
    count: int = 0
    s: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.s += seconds

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": max(0, int(self.s * 1e9))}


class Statistics:
    """Counts since the worker began to serve."""

    def __init__(self) -> None:
        self._success = _Duration()
        self._fail = _Duration()
        self._queue = _Duration()
        self._infer = _Duration()
        self._input = _Duration()
        self._output = _Duration()
        self._executions = 0
        self._batches: dict[int, _Duration] = {}
        self._last_s = 0.0
        self._noted: deque[Callable[[], None]] = deque()
        self._adding = threading.Lock()

    def ran(self, waited_s: float, together: int, took_s: float) -> None:
        """Count one run of the model for so many requests together, which had waited that long, all summed up."""
        self._note(partial(self._ran, waited_s, together, took_s, time.time()))

    def answered(self, took_s: float, *, well: bool) -> None:
        """Count a request from its arrival to its answer."""
        self._note(partial((self._success if well else self._fail).add, took_s))

    def translated(self, input_s: float, output_s: float, requests: int = 1) -> None:
        """Count how long it took to make arrays of a request, and an answer of arrays."""
        self._note(partial(self._translated, input_s, output_s, requests))

    def _note(self, add: Callable[[], None]) -> None:
        self._noted.append(add)
        if len(self._noted) >= MOST_NOTED:
            self._add_up()

    def _add_up(self) -> None:
        with self._adding, suppress(IndexError):
            while True:
                self._noted.popleft()()

    def _ran(self, waited_s: float, together: int, took_s: float, at_s: float) -> None:
        self._executions += 1
        self._queue.add(waited_s, together)
        self._infer.add(took_s * together, together)
        self._batches.setdefault(together, _Duration()).add(took_s)
        self._last_s = at_s

    def _translated(self, input_s: float, output_s: float, requests: int) -> None:
        self._input.add(input_s, requests)
        self._output.add(output_s, requests)

    def to_json(self, name: str, version: str) -> dict[str, Any]:
        """Return one entry of `model_stats`."""
        self._add_up()
        nothing = {"count": 0, "ns": 0}
        return {
            "name": name,
            "version": version,
            "last_inference": int(self._last_s * 1000),
            "inference_count": self._queue.count,
            "execution_count": self._executions,
            "inference_stats": {
                "success": self._success.to_json(),
                "fail": self._fail.to_json(),
                "queue": self._queue.to_json(),
                "compute_input": self._input.to_json(),
                "compute_infer": self._infer.to_json(),
                "compute_output": self._output.to_json(),
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": nothing,
                    "compute_infer": entry.to_json(),
                    "compute_output": nothing,
                }
                for size, entry in sorted(self._batches.items())
            ],
        }
