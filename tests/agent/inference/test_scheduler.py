"""The scheduler with a clock of the test's own: what it promises holds for every sequence of requests."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_edge_agent.inference.scheduler import MAX_WAITING, PATIENCE, Pick, Priority, Scheduler, Ticket

URGENT, NORMAL, LOW = Priority


def ticket(
    client: str = "a", priority: Priority = NORMAL, deadline_s: float = math.inf, batch: str | None = None
) -> Ticket:
    return Ticket(client, 0.0, priority, deadline_s, batch)


def filled(*tickets: Ticket, max_batch: int = 1) -> Scheduler:
    scheduler = Scheduler(max_batch)
    assert not any(scheduler.admit(entry, 0.0).refused for entry in tickets)
    return scheduler


def drained(scheduler: Scheduler, run_s: float = 0.0) -> list[Ticket]:
    now = 0.0
    found: list[Ticket] = []
    while picked := scheduler.take(now).run:
        found += picked
        now += run_s
        scheduler.finished(now)
    return found


def test_the_most_urgent_comes_first_and_then_who_came_first() -> None:
    low, one, two, urgent = ticket(priority=LOW), ticket(), ticket(), ticket(priority=URGENT)
    assert drained(filled(low, one, two, urgent)) == [urgent, one, two, low]


def test_within_a_client_the_earliest_deadline_comes_first() -> None:
    late, soon, never = ticket(deadline_s=9.0), ticket(deadline_s=5.0), ticket()
    assert drained(filled(never, late, soon)) == [soon, late, never]


def test_every_client_has_its_turn() -> None:
    greedy = [ticket("greedy") for _ in range(5)]
    modest, other = ticket("modest"), ticket("other")
    assert drained(filled(*greedy, modest, other)) == [greedy[0], modest, other, *greedy[1:]]


def test_an_expired_request_never_runs() -> None:
    scheduler = filled(ticket(deadline_s=1.0), alive := ticket())
    picked = scheduler.take(1.0)
    assert picked.run == (alive,)
    assert len(picked.expired) == 1


def test_a_deadline_that_cannot_be_kept_is_refused_at_once_with_the_wait() -> None:
    scheduler = filled(ticket())
    scheduler.take(0.0)
    scheduler.finished(2.0)
    assert not scheduler.admit(ticket("b"), 2.0).refused
    scheduler.take(2.0)
    assert not scheduler.admit(ticket("b"), 3.0).refused
    # One second of the running one is left, then two of the one that waits, then two of its own.
    refused = scheduler.admit(ticket("c", deadline_s=3.0 + 4.9), 3.0)
    assert refused.refused
    assert refused.wait_s == pytest.approx(3.0)
    assert not scheduler.admit(ticket("c", deadline_s=3.0 + 5.1), 3.0).refused
    assert not scheduler.admit(ticket("c", URGENT, deadline_s=3.0 + 3.1), 3.0).refused, (
        "it waits for the running one only"
    )


def test_a_full_queue_refuses_and_an_urgent_request_puts_out_the_newest_of_the_least_urgent() -> None:
    scheduler = filled(
        *(ticket(priority=LOW) for _ in range(MAX_WAITING - 2)), ticket(), newest := ticket(priority=LOW)
    )
    assert scheduler.admit(ticket(priority=LOW), 0.0).refused
    admission = scheduler.admit(ticket(priority=URGENT), 0.0)
    assert admission.evicted is newest
    assert len(scheduler) == MAX_WAITING


def test_a_client_that_fills_the_queue_leaves_room_for_others() -> None:
    scheduler = filled(*(ticket("greedy") for _ in range(MAX_WAITING - 1)), newest := ticket("greedy"))
    assert scheduler.admit(ticket("greedy"), 0.0).refused
    assert scheduler.admit(ticket("modest"), 0.0).evicted is newest
    admissions = [scheduler.admit(ticket("modest"), 0.0) for _ in range(MAX_WAITING)]
    assert sum(not each.refused for each in admissions) == MAX_WAITING // 2 - 1
    assert len(scheduler) == MAX_WAITING
    assert scheduler.admit(ticket("low", LOW), 0.0).refused


def test_low_requests_of_one_kind_run_together() -> None:
    alike = [ticket(client, LOW, batch="8x3") for client in "aabbc"]
    odd, alone = ticket("a", LOW, batch="9x3"), ticket("d", LOW)
    scheduler = filled(*alike, odd, alone, max_batch=4)
    first = scheduler.take(0.0)
    assert [entry.client for entry in first.run] == ["a", "b", "c", "a"]
    assert {entry.batch for entry in first.run} == {"8x3"}
    scheduler.finished(0.0)
    assert len(drained(scheduler)) == 3


def test_others_never_run_together() -> None:
    scheduler = filled(*(ticket(batch="x") for _ in range(3)), max_batch=8)
    assert len(scheduler.take(0.0).run) == 1


def test_a_request_begins_at_once_only_when_it_is_alone_and_in_time() -> None:
    scheduler = Scheduler()
    assert scheduler.begin(None, 0.0)
    assert not scheduler.begin(None, 0.0), "one is running"
    scheduler.finished(2.0)
    assert not scheduler.begin(1.9, 2.0), "a run takes two seconds"
    waits = ticket("a")
    scheduler.admit(waits, 2.0)
    assert not scheduler.begin(None, 2.0), "another waits"
    assert scheduler.take(2.0).run == (waits,)


def test_an_estimate_by_which_all_are_refused_is_tried_again_after_a_while() -> None:
    scheduler = filled(ticket())
    scheduler.take(0.0)
    scheduler.finished(2.0)  # the board was held up: any other run takes a tenth of a second
    assert not scheduler.begin(1.0, 2.0)
    assert scheduler.admit(ticket(deadline_s=19.9 + 1.0), 19.9).refused, "a tenth of the time may go into trying"
    assert not scheduler.admit(ticket(deadline_s=20.0 + 1.0), 20.0).refused
    scheduler.take(20.0)
    scheduler.finished(20.1)
    assert scheduler.begin(1.0, 20.1)


def test_a_withdrawn_request_is_forgotten() -> None:
    scheduler = filled(gone := ticket(), stays := ticket())
    assert scheduler.withdraw(gone)
    assert not scheduler.withdraw(gone)
    assert drained(scheduler) == [stays]


TICKETS = st.builds(
    ticket,
    client=st.sampled_from("abc"),
    priority=st.sampled_from(list(Priority)),
    deadline_s=st.one_of(st.just(math.inf), st.floats(0.0, 20.0)),
    batch=st.sampled_from([None, "x", "y"]),
)
STEPS = st.lists(st.one_of(TICKETS, st.just("take"), st.floats(0.0, 2.0)), max_size=120)


class Followed:
    """A scheduler whose promises are checked at every step."""

    def __init__(self, max_batch: int) -> None:
        self.scheduler = Scheduler(max_batch, max_waiting=12, longest_wait_s=math.inf)
        self.now = 0.0
        self.waiting: list[Ticket] = []
        self.passed = dict.fromkeys(Priority, 0)

    def admit(self, entry: Ticket) -> None:
        admission = self.scheduler.admit(entry, self.now)
        if admission.refused:
            return
        if admission.evicted is not None:
            assert admission.evicted.priority > entry.priority
            self.waiting.remove(admission.evicted)
        self.waiting.append(entry)

    def take(self) -> None:
        picked = self.scheduler.take(self.now)
        for entry in picked.expired:
            assert entry.deadline_s <= self.now
            self.waiting.remove(entry)
        assert all(entry.deadline_s > self.now for entry in self.waiting)
        assert bool(picked.run) == bool(self.waiting)
        if picked.run:
            self._check(picked)
        self.scheduler.finished(self.now)

    def _check(self, picked: Pick) -> None:
        first = picked.run[0]
        for priority in Priority:
            others = [entry for entry in self.waiting if entry.priority == priority]
            if priority < first.priority and others:
                assert self.passed[first.priority] >= PATIENCE[first.priority], "an inversion"
            if priority > first.priority:
                self.passed[priority] = self.passed[priority] + 1 if others else 0
                # Two classes may both have waited long enough: one of them goes first.
                assert self.passed[priority] <= PATIENCE[priority] + 1, "starvation"
        self.passed[first.priority] = 0
        if len(picked.run) > 1:
            assert {(entry.priority, entry.batch) for entry in picked.run} == {(LOW, first.batch)}
            assert first.batch is not None
        for entry in picked.run:
            self.waiting.remove(entry)


@settings(max_examples=300)
@given(STEPS, st.integers(1, 4))
def test_no_inversion_no_starvation_and_nothing_is_lost_or_run_twice(
    steps: list[Ticket | str | float], batch: int
) -> None:
    followed = Followed(batch)
    for step in steps:
        if isinstance(step, Ticket):
            followed.admit(step)
        elif isinstance(step, str):
            followed.take()
        else:
            followed.now += step
        assert len(followed.scheduler) == len(followed.waiting)
    while followed.waiting:
        followed.take()


@settings(max_examples=100)
@given(st.lists(st.sampled_from([URGENT, NORMAL]), min_size=1, max_size=200), st.integers(0, 5))
def test_a_low_request_waits_no_longer_than_stated(arrivals: list[Priority], before: int) -> None:
    scheduler = Scheduler(max_waiting=10_000, longest_wait_s=math.inf)
    for _ in range(before):
        scheduler.admit(ticket("others", LOW), 0.0)
    waiting = ticket("me", LOW)
    scheduler.admit(waiting, 0.0)
    taken = 0
    while True:
        # There is always something more urgent.
        scheduler.admit(ticket("busy", arrivals[taken % len(arrivals)]), 0.0)
        picked = scheduler.take(0.0)
        scheduler.finished(0.0)
        if waiting in picked.run:
            break
        taken += 1
    assert taken <= (before + 1) * (PATIENCE[LOW] + 2)
