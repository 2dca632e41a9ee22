"""The engine with a model whose runs the test begins and ends: who runs where, and that nobody is forgotten."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from autoglm_edge_agent.inference.engine import QUICK_S, Engine, Work
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_agent.inference.scheduler import Scheduler, Ticket
from autoglm_edge_agent.inference.statistics import Statistics

Array = npt.NDArray[Any]
ONE = [np.ones(1, np.float32)]


class Doubling:
    """A session that gives twice its input, and can be held up."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()
        self.threads: list[str] = []

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.free.wait(20)
        if np.isnan(inputs[0]).any():
            raise ValueError("no number")
        return [2 * inputs[0]]

    def reset(self) -> None:
        """It remembers nothing."""

    def placement(self) -> Mapping[str, int]:
        return {}


class Bench:
    def __init__(self, *, lease: bool = False) -> None:
        self._pair = socket.socketpair()
        self.session = Doubling()
        self.statistics = Statistics()
        sampler = Sampler(self._pair[0])
        held = nullcontext() if lease else None
        self.engine = Engine(self.session, Scheduler(), sampler, self.statistics, held, anywhere=True)

    def submit(self, inputs: Sequence[Array] = ONE) -> list[list[Array] | RequestError]:
        """Let a request wait for its turn; its answer comes into the list."""
        answers: list[list[Array] | RequestError] = []
        ticket = Ticket("a client", time.monotonic(), work=Work(inputs, answers.append))
        assert not self.engine.submit(ticket).refused
        return answers

    def close(self) -> None:
        self.session.free.set()
        self.engine.close()
        for end in self._pair:
            end.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def _within(condition: Any, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    return bool(condition())


def _known_to_be_quick(bench: Bench) -> None:
    """Runs until the estimate of a run's time is small, however busy the machine is."""

    def quick() -> bool:
        bench.submit()
        return 0.0 < bench.engine._scheduler.run_s < QUICK_S

    assert _within(quick)
    assert _within(lambda: not bench.engine._scheduler.running and not len(bench.engine._scheduler))


def test_a_model_of_which_nothing_is_known_runs_in_the_engines_thread(bench: Bench) -> None:
    assert bench.engine.run_here(ONE, None) is None
    answers = bench.submit()
    assert _within(lambda: answers)
    assert bench.session.threads == ["inference"]


def test_a_quick_model_runs_where_it_is_asked_and_is_counted(bench: Bench) -> None:
    _known_to_be_quick(bench)
    before = bench.statistics.to_json("m", "1")["execution_count"]
    outcome = bench.engine.run_here(ONE, None)
    assert isinstance(outcome, list) and outcome[0].tolist() == [2.0]
    assert bench.session.threads[-1] == threading.current_thread().name
    assert _within(lambda: bench.statistics.to_json("m", "1")["execution_count"] > before)
    refused = bench.engine.run_here([np.full(1, np.nan)], None)
    assert isinstance(refused, RequestError) and refused.status == 400


def test_what_comes_while_another_runs_waits_its_turn(bench: Bench) -> None:
    _known_to_be_quick(bench)
    bench.session.free.clear()
    bench.session.begun.clear()
    first = bench.submit()
    assert bench.session.begun.wait(10)
    assert bench.engine.run_here(ONE, None) is None
    bench.session.free.set()
    assert _within(lambda: first)


def test_who_came_during_a_run_elsewhere_is_not_forgotten(bench: Bench) -> None:
    _known_to_be_quick(bench)
    bench.session.free.clear()
    bench.session.begun.clear()
    elsewhere = threading.Thread(target=bench.engine.run_here, args=(ONE, None))
    elsewhere.start()
    assert bench.session.begun.wait(10)
    waiting = bench.submit()
    time.sleep(0.05)
    assert waiting == [], "one runs at a time"
    bench.session.free.set()
    elsewhere.join(10)
    assert _within(lambda: waiting)


def test_a_model_with_a_lease_never_keeps_the_server_waiting() -> None:
    bench = Bench(lease=True)
    _known_to_be_quick(bench)
    assert bench.engine.run_here(ONE, None) is None
    bench.close()
