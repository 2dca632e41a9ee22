"""Which request the model runs next: deadlines, three priorities, a turn for every client. No I/O and no clock.

The most urgent class that waits is served first. Within a class every client gets a turn, one request each; within a
client the earliest deadline comes first, then the earliest arrival.

No inversion: a request is taken before a more urgent one only where the bound below asks for it.
No starvation: after `PATIENCE` requests of more urgent classes in a row, one of the class that waited is taken. So
one that is N-th in its own class runs after at most (N + 1) * (PATIENCE + 2) others, where its deadline is that late.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count
from typing import Any


class Priority(IntEnum):
    """The classes, by the numbers of Triton's request parameter `priority`: 1 is the most urgent."""

    URGENT = 1
    NORMAL = 2
    LOW = 3


PATIENCE = {Priority.URGENT: 0, Priority.NORMAL: 8, Priority.LOW: 32}
"""How many requests of more urgent classes may be taken in a row while one of this class waits."""
MAX_WAITING = 64
"""Requests that may wait for the model. One more is refused, or puts another out: the least urgent where it is more
urgent than that, else the newest of the client that has the most of its class, where that has two more than its own."""
LONGEST_WAIT_S = 30.0
"""The longest estimated wait at which a request that names no deadline is admitted."""
_ORDER = tuple(Priority)
_WEIGHT = 0.2
"""Of the newest run in the estimate of a run's time."""
_TRUSTED_RUNS = 9.0
"""For how many times itself the estimate is believed without another run: no more than a tenth of the time goes into
trying whether requests that are refused by it could be answered after all."""


@dataclass(eq=False)
class Ticket:
    """A request that waits. Times are in seconds of one monotonic clock."""

    client: Hashable
    arrived_s: float
    priority: Priority = Priority.NORMAL
    deadline_s: float = math.inf
    """When the answer is of no use any more."""
    batch: Hashable = None
    """Requests of the lowest class with the same value may run together; None: alone."""
    work: Any = None
    """What is to be run; of no interest here."""


@dataclass(frozen=True)
class Admission:
    """What became of a request that came: `refused`, or waiting, perhaps instead of `evicted`."""

    refused: bool
    wait_s: float
    """The estimated time until it runs, or would have run."""
    evicted: Ticket | None = None


@dataclass(frozen=True)
class Pick:
    """What to run now, together, and what must not run any more because its deadline has passed."""

    run: tuple[Ticket, ...]
    expired: tuple[Ticket, ...]


NOTHING = Pick((), ())


@dataclass
class _Class:
    """The waiting requests of one priority: by client, in the order of their turns."""

    clients: dict[Hashable, list[tuple[float, int, Ticket]]] = field(default_factory=dict)
    passed_over: int = 0

    def put(self, ticket: Ticket, number: int) -> None:
        heapq.heappush(self.clients.setdefault(ticket.client, []), (ticket.deadline_s, number, ticket))

    def pop(self) -> Ticket:
        client = next(iter(self.clients))
        waiting = self.clients.pop(client)
        _, _, ticket = heapq.heappop(waiting)
        if waiting:
            self.clients[client] = waiting
        return ticket

    def expire(self, now: float) -> Iterator[Ticket]:
        if not any(waiting[0][0] <= now for waiting in self.clients.values()):
            return
        for client, waiting in list(self.clients.items()):
            while waiting and waiting[0][0] <= now:
                yield heapq.heappop(waiting)[2]
            if not waiting:
                del self.clients[client]

    def remove(self, ticket: Ticket) -> bool:
        waiting = self.clients.get(ticket.client, [])
        kept = [entry for entry in waiting if entry[2] is not ticket]
        if len(kept) == len(waiting):
            return False
        heapq.heapify(kept)
        if kept:
            self.clients[ticket.client] = kept
        else:
            del self.clients[ticket.client]
        return True

    def newest(self) -> Ticket | None:
        entries = [entry for waiting in self.clients.values() for entry in waiting]
        return max(entries, key=lambda entry: entry[1])[2] if entries else None

    def newest_of_most(self, ticket: Ticket) -> Ticket | None:
        """Return what has to leave so that every client has a place: nothing where this one has its share."""
        if not self.clients:
            return None
        most = max(self.clients.values(), key=len)
        if len(most) < len(self.clients.get(ticket.client, [])) + 2:
            return None
        return max(most, key=lambda entry: entry[1])[2]

    def ahead_of(self, ticket: Ticket) -> int:
        """Count those that have their turn before this one, were it put in now."""
        mine = self.clients.get(ticket.client, [])
        place = sum(1 for deadline_s, _, _ in mine if deadline_s <= ticket.deadline_s)
        others = (len(waiting) for client, waiting in self.clients.items() if client != ticket.client)
        return place + sum(min(waiting, place + 1) for waiting in others)

    def __len__(self) -> int:
        return sum(map(len, self.clients.values()))


class Scheduler:
    """The queue. Not safe for several threads at once."""

    def __init__(
        self, max_batch: int = 1, max_waiting: int = MAX_WAITING, longest_wait_s: float = LONGEST_WAIT_S
    ) -> None:
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._longest_wait_s = longest_wait_s
        self._classes = {priority: _Class() for priority in _ORDER}
        self._waiting = 0
        self._numbers = count()
        self._run_s = 0.0
        self._began_s: float | None = None
        self._ended_s = 0.0

    def __len__(self) -> int:
        return self._waiting

    @property
    def running(self) -> bool:
        """Whether something that was taken is not finished."""
        return self._began_s is not None

    @property
    def run_s(self) -> float:
        """The estimate of one run's time: 0 before the first."""
        return self._run_s

    def begin(self, timeout_s: float | None, now: float) -> bool:
        """Take a request that is alone and in time: as `admit` and `take`, for less. False: it has to wait its turn."""
        if self._waiting or self._began_s is not None:
            return False
        if timeout_s is not None and self._expected_s(timeout_s, now) > timeout_s:
            return False
        self._began_s = now
        return True

    def admit(self, ticket: Ticket, now: float) -> Admission:
        """Let a request wait, unless it would wait too long or too many wait already."""
        left_s = ticket.deadline_s - now
        if self._waiting or self._began_s is not None:
            wait_s = self._wait_s(ticket, now)
            takes_s = wait_s + self._run_s
        else:
            wait_s, takes_s = 0.0, self._expected_s(left_s, now)
        if wait_s > self._longest_wait_s or takes_s > left_s:
            return Admission(refused=True, wait_s=wait_s)
        evicted = None
        if self._waiting >= self._max_waiting:
            evicted = self._least_urgent_below(ticket.priority) or self._classes[ticket.priority].newest_of_most(ticket)
            if evicted is None:
                return Admission(refused=True, wait_s=wait_s)
            self.withdraw(evicted)
        self._classes[ticket.priority].put(ticket, next(self._numbers))
        self._waiting += 1
        return Admission(refused=False, wait_s=wait_s, evicted=evicted)

    def withdraw(self, ticket: Ticket) -> bool:
        """Forget a request whose client has gone; False when it does not wait."""
        found = self._classes[ticket.priority].remove(ticket)
        self._waiting -= found
        return found

    def expire(self, now: float) -> tuple[Ticket, ...]:
        """Take out what must not run any more."""
        expired = tuple(ticket for waiting in self._classes.values() for ticket in waiting.expire(now))
        self._waiting -= len(expired)
        return expired

    def take(self, now: float) -> Pick:
        """Take out what to run now; nothing when nothing waits, or what was taken before is not finished."""
        if not self._waiting or self._began_s is not None:
            return NOTHING
        expired = self.expire(now)
        priority = self._next_class()
        if priority is None:
            return Pick((), expired)
        self._began_s = now
        self._classes[priority].passed_over = 0
        for other in _ORDER:
            if other > priority:
                behind = self._classes[other]
                behind.passed_over = behind.passed_over + 1 if behind.clients else 0
        first = self._classes[priority].pop()
        run = (first, *self._mates(first)) if first.batch is not None and self._max_batch > 1 else (first,)
        self._waiting -= len(run)
        return Pick(run, expired)

    def finished(self, now: float) -> None:
        """Note that what was taken has run."""
        if self._began_s is not None:
            took_s = max(0.0, now - self._began_s)
            self._run_s = took_s if self._run_s == 0.0 else (1 - _WEIGHT) * self._run_s + _WEIGHT * took_s
        self._began_s, self._ended_s = None, now

    def _expected_s(self, left_s: float, now: float) -> float:
        """Return the estimate of a run's time, where nothing runs or waits.

        One by which a request is refused, and that no run has confirmed for long, is forgotten: after a run that was
        held up it could refuse whatever comes, and then nothing would ever correct it.
        """
        if self._run_s > left_s and now - self._ended_s >= _TRUSTED_RUNS * self._run_s:
            self._run_s = 0.0
        return self._run_s

    def _next_class(self) -> Priority | None:
        waiting = [priority for priority in _ORDER if self._classes[priority].clients]
        for priority in reversed(waiting[1:]):
            if self._classes[priority].passed_over >= PATIENCE[priority]:
                return priority
        return waiting[0] if waiting else None

    def _mates(self, first: Ticket) -> Iterator[Ticket]:
        """Take those that can run with the first one, in the order of their turns."""
        if first.priority is not Priority.LOW:
            return
        waiting = self._classes[Priority.LOW]
        taken = 1
        skipped: set[Hashable] = set()
        while taken < self._max_batch:
            client = next((name for name in waiting.clients if name not in skipped), None)
            if client is None:
                return
            ticket = waiting.clients[client][0][2]
            if ticket.batch != first.batch:
                skipped.add(client)
                continue
            waiting.remove(ticket)
            left = waiting.clients.pop(client, None)
            if left:
                waiting.clients[client] = left
            taken += 1
            yield ticket

    def _least_urgent_below(self, priority: Priority) -> Ticket | None:
        for other in reversed(_ORDER):
            if other > priority and self._classes[other].clients:
                return self._classes[other].newest()
        return None

    def _wait_s(self, ticket: Ticket, now: float) -> float:
        running_s = 0.0 if self._began_s is None else max(0.0, self._began_s + self._run_s - now)
        ahead: float = sum(len(self._classes[other]) for other in _ORDER if other < ticket.priority)
        own = self._classes[ticket.priority].ahead_of(ticket)
        ahead += own / self._max_batch if ticket.batch is not None and ticket.priority is Priority.LOW else own
        return running_s + ahead * self._run_s
