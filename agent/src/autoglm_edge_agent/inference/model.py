"""A loaded variant: how it is loaded, asked and counted."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy.typing as npt
import psutil

from autoglm_edge_agent.inference.backends import Bindable, Bound, Session
from autoglm_edge_agent.inference.control import Beat, WorkerOrder
from autoglm_edge_agent.inference.engine import Engine, Work
from autoglm_edge_agent.inference.errors import ModelUnusable, RequestError
from autoglm_edge_agent.inference.opening import open_variant
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_agent.inference.scheduler import Priority, Scheduler, Ticket
from autoglm_edge_agent.inference.statistics import Statistics
from autoglm_edge_agent.inference.terms import Terms
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.histogram import HistogramRecorder
from autoglm_edge_protocol.manifest import Manifest, Variant

Array = npt.NDArray[Any]

LATE_S = 0.25
"""How long after its time a request may still be answered by the engine, before its client is told without it."""


class Model:
    """A loaded variant that runs one inference at a time, and counts.

    `max_batch`: how many requests of the lowest class may run together, where every tensor's first dimension is free.
    `anywhere`: the runtime may be asked by any thread, one at a time.
    """

    def __init__(
        self,
        manifest: Manifest,
        variant: Variant,
        session: Session,
        sampler: Sampler,
        max_batch: int = 1,
        lease: AbstractContextManager[object] | None = None,
        *,
        anywhere: bool = False,
    ) -> None:
        self.manifest = manifest
        self.variant = variant
        self.sampler = sampler
        self.statistics = Statistics()
        self._batches = max_batch > 1 and all(spec.shape[:1] == (-1,) for spec in (*variant.inputs, *variant.outputs))
        scheduler = Scheduler(max_batch if self._batches else 1)
        self.bind = session.bind if isinstance(session, Bindable) else None
        self.engine = Engine(session, scheduler, sampler, self.statistics, lease, anywhere=anywhere)
        self._counting = threading.Lock()
        self._latency = HistogramRecorder()
        self._errors = 0

    async def run(self, inputs: Sequence[Array], terms: Terms = Terms()) -> list[Array]:  # noqa: B008
        """Run the model when it is this request's turn.

        Raises RequestError: 503 when it would wait too long or a more urgent one took its place, 504 when its time is
        over, 400 when the runtime refuses the inputs.
        """
        outcome = self.run_at_once(inputs, terms)
        if isinstance(outcome, RequestError):
            raise outcome
        if outcome is not None:
            return outcome
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[list[Array]] = loop.create_future()

        def done(outcome: list[Array] | RequestError) -> None:
            with suppress(RuntimeError):  # the loop is over, and with it whoever asked
                loop.call_soon_threadsafe(_settle, settled, outcome)

        ticket = self.ask(inputs, terms, done)
        try:
            if terms.timeout_s is None:
                return await settled
            return await asyncio.wait_for(settled, terms.timeout_s + LATE_S)
        except (asyncio.TimeoutError, TimeoutError):
            raise RequestError(504, "its time was over before the model had answered") from None
        finally:
            if not settled.done() or settled.cancelled():
                self.engine.withdraw(ticket)

    def run_at_once(self, inputs: Sequence[Array], terms: Terms) -> list[Array] | RequestError | None:
        """Run the model here and now; None where that is a wait, or the thread matters to the runtime."""
        return self.engine.run_here(inputs, terms.timeout_s)

    def ask(
        self,
        inputs: Sequence[Array],
        terms: Terms,
        done: Callable[[list[Array] | RequestError], None],
        *,
        borrowed: bool = False,
        bound: Bound | None = None,
    ) -> Ticket:
        """Let a request wait for its turn; `done` is called in the engine's thread. Raises RequestError (503).

        See `Work` for `borrowed` and `bound`.
        """
        now = time.monotonic()
        ticket = Ticket(
            terms.client,
            now,
            terms.priority,
            math.inf if terms.timeout_s is None else now + terms.timeout_s,
            self._batch(inputs) if terms.priority is Priority.LOW else None,
            Work(inputs, done, borrowed, bound),
        )
        admission = self.engine.submit(ticket)
        if admission.refused:
            text = f"too many requests wait for the model; this one would wait about {admission.wait_s:.3f} s"
            raise RequestError(503, text, retry_after_s=admission.wait_s)
        return ticket

    def count(self, latency_us: float, status: int) -> None:
        """Count an answered inference request."""
        with self._counting:
            self._latency.record(latency_us)
            self._errors += status >= 400
        self.statistics.answered(latency_us / 1e6, well=status < 400)

    def beat(self) -> Beat:
        """Return what was counted since the last beat."""
        with self._counting:
            latency, errors = self._latency.take(), self._errors
            self._errors = 0
        return Beat(
            requests=latency.count,
            errors=errors,
            busy_s=self.engine.busy_s,
            rss_bytes=psutil.Process().memory_info().rss,
            latency=latency,
            run=self.engine.take_cpu_us(),
        )

    def _batch(self, inputs: Sequence[Array]) -> Hashable:
        return tuple(array.shape[1:] for array in inputs) if self._batches else None


def _settle(settled: asyncio.Future[list[Array]], outcome: list[Array] | RequestError) -> None:
    if settled.done():
        return
    if isinstance(outcome, RequestError):
        settled.set_exception(outcome)
    else:
        settled.set_result(outcome)


def load(order: WorkerOrder) -> tuple[Manifest, Variant, Session]:
    """Load the variant. Raises ModelUnusable, ProtocolError, OSError."""
    manifest = read_manifest(order.bundle)
    variant = manifest.variant(order.variant)
    if variant is None:
        raise ModelUnusable(f"{manifest.id} has no variant {order.variant}")
    return manifest, variant, open_variant(order.bundle, variant, order.plan)
