"""The thread that runs the model: it takes from the scheduler what is next, and watches the doorbells of local clients.

One thread, because a runtime is asked by one thread at a time and some (GPU delegates) by the same one always. It also
reads the doorbells itself: a request over shared memory is run by the thread that noticed it, without a hand-over.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.inference.awake_selector import AwakeSelector
from autoglm_edge_agent.inference.backends import Bound, Session
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_agent.inference.scheduler import Admission, Scheduler, Ticket
from autoglm_edge_agent.inference.statistics import Statistics
from autoglm_edge_protocol.histogram import HistogramRecorder

log = logging.getLogger(__name__)

MEASURED_EVERY_S = 0.001
"""Not every run's processor time is measured where they follow each other faster: to ask the kernel twice takes a tenth
of a small model's request."""
QUICK_S = 0.002
"""A model that runs faster than this may run in the thread of the server, which answers nobody else meanwhile."""

Array = npt.NDArray[Any]


@dataclass(eq=False)
class Work:
    """What a ticket stands for.

    `done` is called once, in the thread of the engine, or, for one that is put out, in that of whoever came instead.
    """

    inputs: Sequence[Array]
    done: Callable[[list[Array] | RequestError], None]
    borrowed: bool = False
    """The inputs are the client's memory, which it may overwrite once it has its answer."""
    bound: Bound | None = None
    """The model with these inputs, where the two were bound together."""


class Doorbell(Protocol):
    """A socket on which a local client says that its tensors are in place."""

    def fileno(self) -> int:
        """Return the descriptor to watch."""

    def rung(self) -> bool:
        """Take what came, without waiting; False at the end of the connection, which is then forgotten."""


class Engine:
    """Runs one model. `submit` and `watch` may be called from any thread."""

    def __init__(
        self,
        session: Session,
        scheduler: Scheduler,
        sampler: Sampler,
        statistics: Statistics,
        lease: AbstractContextManager[object] | None = None,
        *,
        anywhere: bool = False,
    ) -> None:
        """`anywhere`: the runtime may be asked by any thread, one at a time."""
        self._session = session
        # Who waits for a lease waits in the engine's thread, and keeps nobody else waiting.
        self._anywhere = anywhere and lease is None
        self._scheduler = scheduler
        self._sampler = sampler
        self._statistics = statistics
        self._lease: AbstractContextManager[object] = (
            lease or threading.Lock()
        )  # always free, and cheaper than nothing written in Python
        self._lock = threading.Lock()
        self._selector = AwakeSelector()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._asleep = False
        self._alone = False
        """A single doorbell has rung, and is being answered."""
        self._closed = False
        self._errands: list[Callable[[], None]] = []
        """What others want to have done in this thread."""
        self._doorbells = 0
        self._measured_s = 0.0
        self._cpu_us = HistogramRecorder()
        self._cpu_s: list[float] = []
        self._uncounted: list[tuple[float, int, float]] = []
        self._run_since: float | None = None
        self._thread = threading.Thread(target=self._loop, name="inference", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """How long the run that is going on has taken so far."""
        since = self._run_since
        return 0.0 if since is None else time.monotonic() - since

    def take_cpu_us(self) -> Any:
        """Return the processor time of runs since the last call, as a histogram."""
        return self._cpu_us.take()

    def run_at_once(
        self, inputs: Sequence[Array], bound: Bound | None, timeout_s: float | None
    ) -> list[Array] | RequestError | None:
        """Run a request whose doorbell rang alone while nothing else is to be done; None: it has to wait its turn.

        Only for doorbells, from `rung`. As `submit`, for much less: no request could be more urgent.
        """
        found = self._undisturbed(inputs, bound, timeout_s, self._cpu_s) if self._alone else None
        if found is None:
            return None
        outcome, took_s = found
        self._uncounted.append((0.0, 1, took_s))
        if isinstance(outcome, list) and self._sampler.wants():
            self._sampler.hand_on(_copies(inputs), _copies(outcome) if bound is not None else outcome)
        return outcome

    def run_here(self, inputs: Sequence[Array], timeout_s: float | None) -> list[Array] | RequestError | None:
        """Run a request in the caller's thread where that is no long wait for it; None: it has to wait its turn.

        Only where the model is quick, nothing else is to be done, and the runtime does not care for the thread: to hand
        a request over and back costs two wake-ups of a sleeping thread, more than many a small model's run.
        """
        if not self._anywhere or not 0.0 < self._scheduler.run_s < QUICK_S:
            return None
        cpu_s: list[float] = []
        found = self._undisturbed(inputs, None, timeout_s, cpu_s)
        if found is None:
            return None
        outcome, took_s = found
        self._statistics.ran(0.0, 1, took_s)
        for each in cpu_s:
            self._cpu_us.record(each * 1e6)
        if isinstance(outcome, list) and self._sampler.wants():
            self._sampler.hand_on(inputs, outcome)
        return outcome

    def _undisturbed(
        self, inputs: Sequence[Array], bound: Bound | None, timeout_s: float | None, cpu_s: list[float]
    ) -> tuple[list[Array] | RequestError, float] | None:
        """Run a request past the queue and return how long that took, too; None: something is before it."""
        began = time.monotonic()
        with self._lock:
            if not self._scheduler.begin(timeout_s, began):
                return None
        try:
            outcome = self._one(inputs, cpu_s, bound)
        finally:
            ended = time.monotonic()
            with self._lock:
                self._scheduler.finished(ended)
                others = len(self._scheduler) > 0
            if others:
                self._wake()
        return outcome, ended - began

    def submit(self, ticket: Ticket) -> Admission:
        """Let a request wait for its turn; one that it puts out is told."""
        with self._lock:
            admission = self._scheduler.admit(ticket, time.monotonic())
            wake = self._asleep and not admission.refused
            self._asleep = self._asleep and not wake
        if admission.evicted is not None:
            admission.evicted.work.done(RequestError(503, "another request took its place", retry_after_s=1.0))
        if wake:
            self._wake()
        return admission

    def withdraw(self, ticket: Ticket) -> bool:
        """Forget a request whose client has gone or does not wait any longer; False when it does not wait here."""
        with self._lock:
            return self._scheduler.withdraw(ticket)

    def watch(self, doorbell: Doorbell) -> None:
        """Watch a doorbell from now on, until it ends."""
        self.call(lambda: self._adopt(doorbell))

    def call(self, do: Callable[[], None]) -> None:
        """Have something done in the engine's thread, between two runs."""
        with self._lock:
            self._errands.append(do)
        self._wake()

    def close(self) -> None:
        """End the thread when what it runs is done; what waits is not answered."""
        self._closed = True
        self._wake()
        self._thread.join()
        self._selector.close()
        self._bell.close()
        self._button.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError, OSError):
            self._button.send(b"!")

    def _loop(self) -> None:
        while not self._closed:
            try:
                self._turn()
            except Exception:
                log.exception("the inference thread goes on after a defect")

    def _count(self) -> None:
        """Whoever asked has the answer; now there is time to count."""
        for waited_s, together, took_s in self._uncounted:
            self._statistics.ran(waited_s, together, took_s)
        self._uncounted.clear()
        for cpu_s in self._cpu_s:
            self._cpu_us.record(cpu_s * 1e6)
        self._cpu_s.clear()

    def _turn(self) -> None:
        self._count()
        with self._lock:
            pick = self._scheduler.take(time.monotonic())
            self._asleep = not pick.run and not pick.expired
            asleep = self._asleep
        for ticket in pick.expired:
            ticket.work.done(RequestError(504, "its time was over before the model was free"))
        if pick.run:
            self._run(pick.run)
        # While requests wait, bells that rang meanwhile are looked at between two runs, so that all have their turn.
        if asleep or self._doorbells or self._errands:
            self._listen(None if asleep else 0.0)

    def _listen(self, timeout_s: float | None) -> None:
        events = self._selector.select(timeout_s)
        with self._lock:
            self._asleep = False
        self._alone = len(events) == 1 and events[0][0].data is not None
        for key, _ in events:
            if key.data is None:
                with suppress(BlockingIOError):
                    self._bell.recv(4096)
                self._run_errands()
            elif not key.data.rung():
                self._selector.unregister(key.fileobj)
                self._doorbells -= 1
        self._alone = False

    def _run_errands(self) -> None:
        with self._lock:
            errands, self._errands = self._errands, []
        for do in errands:
            do()

    def _adopt(self, doorbell: Doorbell) -> None:
        self._selector.register(doorbell.fileno(), selectors.EVENT_READ, doorbell)
        self._doorbells += 1

    def _run(self, tickets: Sequence[Ticket]) -> None:
        began = time.monotonic()
        outcomes: Sequence[list[Array] | RequestError]
        try:
            if len(tickets) == 1:
                work = tickets[0].work
                outcomes = (self._one(work.inputs, self._cpu_s, work.bound),)
            else:
                outcomes = self._together([ticket.work for ticket in tickets])
        except Exception:
            # Nobody else would tell those who wait.
            log.exception("requests could not be run")
            outcomes = [RequestError(500, "internal error; the log of the agent tells more")] * len(tickets)
        finally:
            ended = time.monotonic()
            with self._lock:
                self._scheduler.finished(ended)
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            self._hand_over(ticket.work, outcome)
        waited_s = sum(began - ticket.arrived_s for ticket in tickets)
        self._uncounted.append((waited_s, len(tickets), ended - began))

    def _hand_over(self, work: Work, outcome: list[Array] | RequestError) -> None:
        if isinstance(outcome, list) and self._sampler.wants():
            inputs = _copies(work.inputs) if work.borrowed else work.inputs
            outputs = _copies(outcome) if work.bound is not None else outcome
            work.done(outcome)
            self._sampler.hand_on(inputs, outputs)
        else:
            work.done(outcome)

    def _together(self, works: Sequence[Work]) -> Sequence[list[Array] | RequestError]:
        inputs = [np.concatenate(arrays) for arrays in zip(*(work.inputs for work in works), strict=True)]
        together = self._one(inputs, self._cpu_s)
        rows = [len(work.inputs[0]) for work in works]
        if isinstance(together, list) and all(output.shape[:1] == (sum(rows),) for output in together):
            ends = np.cumsum(rows)[:-1]
            return [list(each) for each in zip(*(np.split(output, ends) for output in together), strict=True)]
        # At least one of them is not right: each gets the answer that it deserves.
        return [self._one(work.inputs, self._cpu_s) for work in works]

    def _one(
        self, inputs: Sequence[Array], cpu_s: list[float], bound: Bound | None = None
    ) -> list[Array] | RequestError:
        now = time.monotonic()
        measured = now - self._measured_s >= MEASURED_EVERY_S
        began_s = time.thread_time() if measured else 0.0
        try:
            with self._lease:
                self._run_since = time.monotonic()
                outputs = self._session.run(inputs) if bound is None else bound.run()
            if measured:
                self._measured_s = now
                cpu_s.append(time.thread_time() - began_s)
            return outputs
        except ValueError as error:
            return RequestError(400, f"the model refused the inputs: {error}")
        except TimeoutError as error:
            return RequestError(503, str(error), retry_after_s=1.0)
        except Exception as error:
            log.exception("the model could not be run")
            return RequestError(500, f"the model could not be run: {type(error).__name__}")
        finally:
            self._run_since = None


def _copies(arrays: Sequence[Array]) -> list[Array]:
    return [array.copy() for array in arrays]
