"""A loaded variant: how it is loaded, run and counted."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import psutil

from autoglm_edge_agent.inference.backends import Session
from autoglm_edge_agent.inference.control import Beat, WorkerOrder
from autoglm_edge_agent.inference.errors import ModelUnusable, RequestError
from autoglm_edge_agent.inference.opening import open_variant
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.histogram import HistogramRecorder
from autoglm_edge_protocol.manifest import Manifest, Variant

Array = npt.NDArray[Any]

MAX_WAITING = 64
"""Requests that may wait for the model; one more is answered 503 at once."""


class Model:
    """A loaded variant that runs one inference at a time, and counts."""

    def __init__(self, manifest: Manifest, variant: Variant, session: Session, sampler: Sampler) -> None:
        self.manifest = manifest
        self.variant = variant
        self.sampler = sampler
        self._session = session
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "inference")
        self._waiting = 0
        self._run_since: float | None = None
        self._latency = HistogramRecorder()
        self._runs = HistogramRecorder()
        self._errors = 0

    async def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run the model. Raises RequestError: 503 when too many wait, 400 when the runtime refuses the inputs."""
        if self._waiting >= MAX_WAITING:
            raise RequestError(503, f"{MAX_WAITING} requests are waiting for the model already")
        self._waiting += 1
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, inputs)
        except ValueError as error:
            raise RequestError(400, f"the model refused the inputs: {error}") from None
        finally:
            self._waiting -= 1
        # Nothing is awaited from here until the answer is written to its connection; the sample comes after that.
        asyncio.get_running_loop().call_soon(self.sampler.offer, inputs, outputs)
        return outputs

    def count(self, latency_us: float, status: int) -> None:
        """Count an answered inference request."""
        self._latency.record(latency_us)
        self._errors += status >= 400

    def beat(self) -> Beat:
        """Return what was counted since the last beat."""
        latency, errors, since = self._latency.take(), self._errors, self._run_since
        self._errors = 0
        return Beat(
            requests=latency.count,
            errors=errors,
            busy_s=0.0 if since is None else time.monotonic() - since,
            rss_bytes=psutil.Process().memory_info().rss,
            latency=latency,
            run=self._runs.take(),
        )

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        self._run_since = time.monotonic()
        began_s = time.thread_time()
        try:
            outputs = self._session.run(inputs)
            self._runs.record((time.thread_time() - began_s) * 1e6)
            return outputs
        finally:
            self._run_since = None


def load(order: WorkerOrder) -> tuple[Manifest, Variant, Session]:
    """Load the variant. Raises ModelUnusable, ProtocolError, OSError."""
    manifest = read_manifest(order.bundle)
    variant = manifest.variant(order.variant)
    if variant is None:
        raise ModelUnusable(f"{manifest.id} has no variant {order.variant}")
    return manifest, variant, open_variant(order.bundle, variant, order.plan)
