"""A selector that is awake now and then: the same events and the same limits of time as any other."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from autoglm_edge_agent.inference.awake_selector import AwakeSelector


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_it_sees_what_comes_at_any_moment(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair

    def ask() -> None:
        for number in range(300):
            time.sleep(0.0 if number % 3 else 0.001)  # in short waits and long ones
            theirs.send(b"?")
            assert theirs.recv(1) == b"!"

    with AwakeSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        asker = threading.Thread(target=ask)
        asker.start()
        for _ in range(300):
            ((key, _events),) = selector.select(10)
            assert key.fileobj is ours and ours.recv(1) == b"?"
            ours.send(b"!")
        asker.join()


def test_it_waits_no_longer_than_told(pair: tuple[socket.socket, socket.socket]) -> None:
    with AwakeSelector() as selector:
        selector.register(pair[0], selectors.EVENT_READ)
        for timeout_s in (0.0, -1.0, 1e-5, 0.05):
            for _ in range(5):
                began = time.monotonic()
                assert selector.select(timeout_s) == []
                assert time.monotonic() - began >= timeout_s * 0.9


def test_an_event_loop_with_it_keeps_its_times(pair: tuple[socket.socket, socket.socket]) -> None:
    async def talk() -> float:
        began = time.monotonic()
        for _ in range(100):
            await asyncio.sleep(1e-4)
        return time.monotonic() - began

    loop = asyncio.SelectorEventLoop(AwakeSelector())
    try:
        assert loop.run_until_complete(talk()) >= 0.01
    finally:
        loop.close()
