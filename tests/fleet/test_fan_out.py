"""Streams, with a clock that the test advances."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_edge_fleet.fan_out import GATHER_S, LAG_BLOCKS, SETTLE_S, SILENCE_S, WINDOW, Stream
from autoglm_edge_fleet.streams import Streams

ALL = set(range(500))
KEY = ("ab" * 32, 1024)


def _send(stream: Stream, now: float, most: int = 10_000) -> list[int]:
    sent: list[int] = []
    while len(sent) < most and (block := stream.next(now)) is not None:
        sent.append(block)
    return sent


def test_it_begins_when_all_who_are_expected_follow() -> None:
    stream = Stream(3, 0.0)
    for number, name in enumerate("abc"):
        assert stream.next(0.01 * number) is None
        stream.join(name, ALL, 0.01 * number)
    assert stream.next(0.02) == 0


def test_half_of_them_are_enough_after_a_moment_and_one_after_the_longest_wait() -> None:
    stream = Stream(4, 0.0)
    stream.join("a", ALL, 0.0)
    assert stream.wake_at() == GATHER_S
    stream.join("b", ALL, 0.1)
    assert stream.wake_at() == 0.1 + SETTLE_S
    assert stream.next(0.1) is None
    assert stream.next(0.1 + SETTLE_S) == 0
    alone = Stream(4, 0.0)
    alone.join("a", ALL, 0.0)
    assert alone.next(GATHER_S - 0.01) is None
    assert alone.next(GATHER_S) == 0


def test_it_is_a_window_ahead_of_the_median_and_of_the_slower_of_two() -> None:
    stream = Stream(5, 0.0)
    for name in "abcde":
        stream.join(name, ALL, 0.0)
    assert len(_send(stream, 0.0)) == WINDOW
    stream.credit("a", 40, 0.1)
    stream.credit("b", 40, 0.1)
    assert _send(stream, 0.1) == []
    stream.credit("c", 30, 0.2)
    assert _send(stream, 0.2) == list(range(WINDOW, WINDOW + 31))
    pair = Stream(2, 0.0)
    pair.join("a", ALL, 0.0)
    pair.join("b", ALL, 0.0)
    _send(pair, 0.0)
    pair.credit("a", 60, 0.1)
    assert _send(pair, 0.1) == []


def test_the_slow_are_named_and_the_silent_given_up() -> None:
    stream = Stream(3, 0.0)
    for name in "abc":
        stream.join(name, ALL, 0.0)
    now = 0.0
    while sent := _send(stream, now):
        now += 0.1
        stream.credit("a", sent[-1], now)
        stream.credit("b", sent[-1], now)
    assert stream.slow == {"c"}
    assert 500 - WINDOW >= LAG_BLOCKS
    silent = Stream(2, 0.0)
    silent.join("a", ALL, 0.0)
    silent.join("b", ALL, 0.0)
    assert len(_send(silent, 0.0)) == WINDOW
    assert silent.next(SILENCE_S) is None
    silent.credit("a", WINDOW - 1, SILENCE_S)
    assert len(_send(silent, SILENCE_S + 0.1)) == WINDOW
    assert silent.followers == {"a"}


def test_who_comes_later_gets_what_has_not_gone_by() -> None:
    stream = Stream(1, 0.0)
    stream.join("a", {1, 5}, 0.0)
    assert stream.next(0.0) == 1
    stream.join("b", {0, 1, 3, 5, 9}, 0.1)
    assert _send(stream, 0.1) == [3, 5, 9]
    assert stream.ended


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sets(st.integers(0, 300), min_size=1), min_size=2),
    st.integers(0, 10_000),
    st.floats(0, 0.5),
)
def test_every_block_that_is_missing_goes_out_once(missing: dict[str, set[int]], seed: int, loss: float) -> None:
    chance, now = random.Random(seed), 0.0
    sent: list[int] = []
    stream = Stream(len(missing), now)
    for name, blocks in missing.items():
        stream.join(name, blocks, now)
    for _ in range(20_000):
        if stream.ended:
            break
        block = stream.next(now)
        if block is None:
            assert stream.wake_at() >= now - SILENCE_S
            now += 0.05
            for name in missing:
                if sent and chance.random() > loss:
                    stream.credit(name, sent[-1], now)
        else:
            sent.append(block)
    assert stream.ended
    assert sent == sorted(set().union(*missing.values()))


def test_a_lone_device_pulls_and_two_share() -> None:
    streams = Streams()
    assert not streams.join("a", KEY, 500 * 1024, ALL, True, frozenset("a"), 0.0)
    assert streams.next(0.0) is None
    assert streams.join("a", KEY, 500 * 1024 - 1, ALL, True, frozenset("ab"), 0.0)
    assert streams.join("b", KEY, 500 * 1024 - 1, ALL, False, frozenset("ab"), 0.0)
    first = streams.next(0.0)
    assert first is not None
    assert (first.offset, first.size_bytes, first.may_pack) == (0, 1024, False)
    streams.leave("b", KEY)
    second = streams.next(0.0)
    assert second is not None
    assert (second.offset, second.may_pack) == (1024, True)
    streams.drop("a")
    assert streams.next(0.0) is None
    assert streams.wake_at() == float("inf")


def test_who_fell_behind_is_not_waited_for_the_next_time() -> None:
    streams = Streams()
    names = frozenset("abc")
    for name in names:
        streams.join(name, KEY, 500 * 1024, ALL, True, names, 0.0)
    now, block = 0.0, streams.next(0.0)
    last = block
    for _ in range(2000):
        now += 0.001
        block = streams.next(now)
        last = block or last
        assert last is not None
        for name in "ab":
            streams.credit(name, KEY, last.offset // 1024, now)
    assert streams.wake_at() == float("inf")
    other = ("cd" * 32, 1024)
    streams.join("a", other, 500 * 1024, ALL, True, names, now)
    assert streams.next(now) is None
    streams.join("b", other, 500 * 1024, ALL, True, names, now)
    assert streams.next(now) is not None
