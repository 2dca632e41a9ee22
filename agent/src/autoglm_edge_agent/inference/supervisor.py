"""Keeps a worker serving: starts it again when it dies, tries a new bundle beside it, and switches over.

The listening sockets belong to the agent and are inherited by every worker, so a connection that comes between two
workers waits in the kernel's queue and is not refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.errors import Hindrance, Refusal, WorkerError
from autoglm_edge_agent.inference.control import Beat, ServingOrder
from autoglm_edge_agent.inference.options import Plan, SessionOptions
from autoglm_edge_agent.inference.probing import Prober
from autoglm_edge_agent.inference.process import BEAT_TIMEOUT_S, DRAIN_S, SERVE_TIMEOUT_S, WorkerProcess
from autoglm_edge_agent.inference.shadowing import Shadowing
from autoglm_edge_agent.inference.standby import Standby
from autoglm_edge_agent.systemd.liveness import Pulse
from autoglm_edge_protocol.deployment import Installed, Reason
from autoglm_edge_protocol.probation import ShadowTerms

log = logging.getLogger(__name__)

STEADY_S = 30.0
"""A worker that served so long was healthy: its end counts as the first failure."""
FAILURES_BEFORE_FALLBACK = 3
FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 10.0
BAD_BUNDLE = "bad-bundle"
"""Its files are at fault, and no other way to run it helps."""
FINAL_TRIAL_FAILURES = frozenset({"golden-disagreement", "model-unusable", BAD_BUNDLE})
"""What a worker says of the bundle itself; anything else may be the board's condition and is tried again."""
TRIAL_ATTEMPTS = 2
BOARD_FAILURES = frozenset({"worker-not-started", "worker-out-of-resources"})
"""What is the board's condition and no reason to give a bundle up that agreed with its golden set."""
SLACK_S = 60.0
"""For what has no limit of its own and takes moments: commits to a slow disk, the end of a killed process."""
DECISION_S = 1800.0
"""For who decides what to serve instead: it may wait for an update's step, and reads a damaged bundle as a whole."""

Unserviceable = Callable[[Installed, Reason], Awaitable["Installed | None"]]


class Supervisor:
    """Owns the workers.

    Args:
        bundle_path: where an installed bundle lies.
        listeners: bound, listening sockets for the workers.
        on_beat: called with each worker's beats.
        on_change: called when it begins or ceases to serve.
        serving: how each worker serves.
        standby: whether a second worker waits, to take over when the serving one dies.
    """

    def __init__(  # noqa: PLR0913 - all of it is one configuration's
        self,
        bundle_path: Callable[[Installed], Path],
        listeners: Sequence[socket.socket],
        threads: int,
        trial_timeout_s: float,
        run_timeout_s: float,
        on_beat: Callable[[Installed, Beat], None],
        on_change: Callable[[], None],
        serving: ServingOrder = ServingOrder(),  # noqa: B008
        *,
        standby: bool = False,
    ) -> None:
        self._bundle_path = bundle_path
        self._listeners = listeners
        self._threads = threads
        self._trial_timeout_s = trial_timeout_s
        self._run_timeout_s = run_timeout_s
        self._on_beat = on_beat
        self._on_change = on_change
        self._serving_order = serving
        self.on_failure: Callable[[Installed, Reason], None] = lambda _installed, _reason: None
        """Called when a serving worker has ended by itself and the board is not to blame."""
        self.prober: Prober | None = None
        """Measures how a bundle runs best when it is tried; None: every bundle runs as is usual."""
        self._failed_ways: dict[Installed, int] = {}
        """How many of the best ways to run the target were given up since the agent began."""
        self.shadowing = Shadowing(bundle_path, run_timeout_s)
        self._sampled: tuple[Installed, float] | None = None
        """What is to hand on samples, and which share."""
        self._target: Installed | None = None
        self._worker: WorkerProcess | None = None
        self._serving_since = 0.0
        self._trial: WorkerProcess | None = None
        self._changed = asyncio.Event()
        self._moving = asyncio.Lock()
        self._workers: set[WorkerProcess] = set()
        """All that were started and have not ended: whatever is cancelled half-way, none is forgotten."""
        self._drains: set[asyncio.Task[None]] = set()
        self.standby = Standby(self._start_untried, wanted=standby)
        self.moving, self.beating, self.deciding = Pulse(), Pulse(), Pulse()
        """What it does to have a worker serve, what that one tells, and who decides what to serve instead."""

    @property
    def serving(self) -> Installed | None:
        """What is served at this moment."""
        worker = self._worker
        return worker.installed if worker is not None and not worker.ended.done() else None

    # what the update asks for ----

    async def fastest(self, variants: Sequence[Installed]) -> Installed | None:
        """Measure variants and return the one that runs best; None where nothing is measured, or none could run."""
        return await self.prober.fastest(variants) if self.prober is not None else None

    async def try_out(self, installed: Installed) -> None:
        """Load a bundle beside the serving one and replay its golden set; the worker then waits to take over.

        Where it fails in the best way to run it that was measured, the next best is tried. Raises Refusal when the
        bundle is at fault, Hindrance when the board may be.
        """
        await self.discard_trial()
        if self.prober is not None:
            await self.prober.measure(installed)
        if installed != self._target:
            self._failed_ways.pop(installed, None)  # of an earlier trial
        while self._trial is None:
            try:
                self._trial = await self._start_trial(installed)
            except Refusal as refusal:
                if refusal.reason.code == BAD_BUNDLE or not self._next_way(installed):
                    raise

    async def _start_trial(self, installed: Installed) -> WorkerProcess:
        for attempt in range(1, TRIAL_ATTEMPTS + 1):
            try:
                return await self._start(installed, trial=True)
            except WorkerError as error:
                code = error.reason.code
                if code in FINAL_TRIAL_FAILURES or (code != "worker-not-started" and attempt == TRIAL_ATTEMPTS):
                    raise Refusal(code, str(error)) from None
                if attempt == TRIAL_ATTEMPTS:
                    raise Hindrance(code, str(error)) from None
        raise AssertionError("the last attempt ends in one way or another")

    def tried(self, installed: Installed) -> bool:
        """Whether a worker that agreed with the golden set waits to take over with this bundle."""
        trial = self._trial
        return trial is not None and trial.installed == installed and not trial.ended.done()

    async def discard_trial(self) -> None:
        """End a worker that will not take over."""
        trial, self._trial = self._trial, None
        if trial is not None:
            await trial.kill()

    async def shadow(self, previous: Installed, current: Installed, terms: ShadowTerms) -> None:
        """Run `previous` beside `current` on samples of what that one is asked. Never fails: it may compare nothing."""
        await self.shadowing.stop()
        self._sampled = (current, terms.rate)
        self._set_rate(self._worker)
        self.shadowing.start(previous, current, terms)

    async def end_shadow(self) -> None:
        """Let nothing run beside the serving worker any more."""
        if self._sampled is not None:
            self._sampled = (self._sampled[0], 0.0)
            self._set_rate(self._worker)
            self._sampled = None
        await self.shadowing.stop()

    def _set_rate(self, worker: WorkerProcess | None) -> None:
        if worker is not None and self._sampled is not None and worker.installed == self._sampled[0]:
            worker.sample(self._sampled[1])

    async def switch(self, installed: Installed | None) -> None:
        """Serve this bundle from now on. Never fails: `run` takes care of a worker that dies."""
        self._target = installed
        async with self._move():
            old = self._worker
            if old is not None and old.installed == installed and not old.ended.done():
                await self.discard_trial()
                return
            if installed is not None:
                with contextlib.suppress(WorkerError):
                    await self._bring_up(installed)
            if self._worker is old:
                # The new one could not: what served before is not what is to be served.
                self._worker = None
                self.beating.rest()
                self._retire(old)
            if old is not None:
                await old.accepts_no_more()
            if installed is None:
                self.standby.keep(None)
        self._changed.set()
        self._on_change()

    async def _bring_up(self, installed: Installed) -> None:
        """Let the worker of the trial serve, or a fresh one where there is none or it has died. Raises WorkerError."""
        if self.tried(installed):
            trial, self._trial = self._trial, None
            assert trial is not None
            with contextlib.suppress(WorkerError):
                await self._serve(trial)
                return
        await self._serve(await self._start(installed, trial=False))

    async def restart(self) -> None:
        """Replace the serving worker by a fresh one of the same bundle; the old one serves until then.

        Raises Refusal when there is nothing to serve or the fresh one fails.
        """
        async with self._move():
            if self._target is None:
                raise Refusal("nothing-to-serve", "no bundle is installed")
            try:
                await self._serve(await self._start(self._target, trial=False))
            except WorkerError as error:
                raise Refusal(error.reason.code, str(error)) from None
        self._changed.set()
        self._on_change()

    # keeping it alive ----

    async def keep(self, unserviceable: Unserviceable) -> None:
        """Keep the target serving, for ever; `unserviceable` says what to serve when a bundle keeps failing."""
        failures, failing = 0, self._target
        while True:
            reason, lived_s = await self._next_failure()
            if reason is None:
                continue
            self.beating.rest()
            failures = 1 if lived_s > STEADY_S or self._target != failing else failures + 1
            failing = self._target
            if failing is not None and reason.code not in BOARD_FAILURES:
                self.on_failure(failing, reason)
            log.warning("%s: %s", failing.bundle.id if failing else "worker", reason.message)
            self._on_change()
            hopeless = failures >= FAILURES_BEFORE_FALLBACK and reason.code not in BOARD_FAILURES
            if hopeless and self._target is not None and self._next_way(self._target):
                failures = 0
                await self.standby.discard()  # it has loaded the model in the way that was given up
                continue
            if hopeless and self._target is not None:
                self.deciding.within(DECISION_S)
                instead = await unserviceable(self._target, reason)
                self.deciding.rest()
                if instead != self._target:
                    self._target, failures = instead, 0
                    continue
            if failures > 1 or self._target is None:
                backoff_s = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (failures - 2))
                await self._changed_within(None if self._target is None else backoff_s)

    async def close(self) -> None:
        """Let workers finish what they accepted, for a limited time, and end all processes."""
        self._target = None
        self.beating.rest()
        await self.discard_trial()
        await self.standby.close()
        await self.end_shadow()
        self.shadowing.close()
        await cancel(*self._drains)  # they may wait longer than one who wants to end
        await asyncio.gather(*(worker.drain() for worker in tuple(self._workers)))
        self._worker = None

    async def _next_failure(self) -> tuple[Reason | None, float]:
        """Start the worker if need be and wait for its end or a change of the target.

        Returns why the worker failed, None when it did not, and how long it had served in seconds.
        """
        if self._target is None:
            await self._changed_within(None)
            return None, 0.0
        async with self._move():
            worker = self._worker
            if worker is None or worker.ended.done() or worker.installed != self._target:
                try:
                    worker = self.standby.take(self._target) or await self._start_untried(self._target)
                    await self._serve(worker)
                except WorkerError as error:
                    return error.reason, 0.0
                self._on_change()
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            either: set[asyncio.Future[Any]] = {worker.ended, changed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        self._changed.clear()
        # One that ended while another bundle was already to take over is no failure of that bundle.
        if worker is self._worker and worker.ended.done() and worker.installed == self._target:
            return worker.ended.result(), time.monotonic() - self._serving_since
        return None, 0.0

    async def _changed_within(self, timeout_s: float | None) -> None:
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        self._changed.clear()

    @contextlib.asynccontextmanager
    async def _move(self) -> AsyncIterator[None]:
        """Hold the lock of what serves, and promise an end: a trial's worker that hangs, then a fresh one."""
        async with self._moving:
            self.moving.within(2 * SERVE_TIMEOUT_S + self._trial_timeout_s + SLACK_S)
            try:
                yield
            finally:
                self.moving.rest()

    async def _start_untried(self, installed: Installed) -> WorkerProcess:
        return await self._start(installed, trial=False)

    async def _start(self, installed: Installed, *, trial: bool) -> WorkerProcess:
        """Return a worker that has loaded the bundle. Raises WorkerError."""
        worker = WorkerProcess(installed, self._take_beat, self._run_timeout_s)
        self._workers.add(worker)
        worker.ended.add_done_callback(lambda _: self._workers.discard(worker))
        path = self._bundle_path(installed)
        await worker.start(
            path,
            self._listeners,
            self.shadowing.outlet,
            plan=self._plan(installed),
            trial=trial,
            serving=self._serving_order,
            timeout_s=self._trial_timeout_s,
        )
        return worker

    def _take_beat(self, installed: Installed, beat: Beat) -> None:
        if self.serving == installed:
            self.beating.within(BEAT_TIMEOUT_S + SLACK_S)
        self._on_beat(installed, beat)

    def _plan(self, installed: Installed) -> Plan:
        measured = self._ways(installed)
        if not measured:
            return Plan(options=SessionOptions(threads=self._threads))
        # There are fewer than were given up where the bundle was removed meanwhile, and measured anew.
        return measured[min(self._failed_ways.get(installed, 0), len(measured) - 1)]

    def _ways(self, installed: Installed) -> Sequence[Plan]:
        return self.prober.plans(installed) if self.prober is not None else ()

    def _next_way(self, installed: Installed) -> bool:
        """Give up the way in which a bundle keeps failing for the next best that was measured; False: there is none."""
        place = self._failed_ways.get(installed, 0) + 1
        if place >= len(self._ways(installed)):
            return False
        kept = {known: failed for known, failed in self._failed_ways.items() if known == self._target}
        self._failed_ways = kept | {installed: place}
        log.warning("%s is run in the next best way from now on: %s", installed.bundle.id, self._plan(installed))
        return True

    async def _serve(self, worker: WorkerProcess) -> None:
        """Let a worker serve from now on instead of the one before. Raises WorkerError."""
        await worker.serve()
        old, self._worker = self._worker, worker
        self._serving_since = time.monotonic()
        self._set_rate(worker)
        self._retire(old)
        self.standby.keep(worker.installed)

    def _retire(self, worker: WorkerProcess | None) -> None:
        if worker is not None:
            # Long enough for any inference that it accepted: one that takes longer is ended as hung.
            task = asyncio.ensure_future(worker.drain(DRAIN_S + self._run_timeout_s))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)
