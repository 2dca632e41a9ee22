"""Samples on their way to the shadow, and how two answers are compared."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.protocol.example_documents import VARIANT

from autoglm_edge_agent.inference import samples, sampling
from autoglm_edge_agent.inference.disagreement import Comparison
from autoglm_edge_agent.inference.sampling import ON_THE_WAY, Sampler
from autoglm_edge_protocol.manifest import TensorSpec, Tolerance, Variant


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    outlet, inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with outlet, inlet:
        inlet.settimeout(5)
        yield outlet, inlet


Pair = tuple[socket.socket, socket.socket]
DTYPES = (np.float32, np.int64, np.uint8, np.bool_, np.float16)


@given(
    st.lists(hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)), max_size=4),
    st.integers(0, 4),
)
def test_what_is_sent_arrives(arrays: list[samples.Array], cut: int) -> None:
    outlet, inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with outlet, inlet:
        samples.send(outlet, arrays[:cut], arrays[cut:])
        received = samples.receive(inlet)
    assert received is not None
    for sent, got in ((arrays[:cut], received[0]), (arrays[cut:], received[1])):
        assert [a.dtype for a in sent] == [a.dtype for a in got]
        for one, other in zip(sent, got, strict=True):
            np.testing.assert_array_equal(one, other)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_sample_are_none(data: bytes) -> None:
    outlet, inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with outlet, inlet:
        outlet.send(data)
        assert samples.receive(inlet) is None


def test_what_is_no_numbers_or_too_large_is_no_sample() -> None:
    assert samples.fits([np.zeros(3)])
    assert not samples.fits([np.array(["a"], dtype=object)])
    assert not samples.fits([np.zeros(samples.SAMPLE_BYTES // 2, np.uint8), np.zeros(samples.SAMPLE_BYTES, np.uint8)])


def _offer(sampler: Sampler, *arrays: np.ndarray[Any, np.dtype[Any]]) -> None:
    """As the engine does after each run."""
    if sampler.wants():
        sampler.hand_on(arrays, arrays)


def _offer_until(sampler: Sampler, sent: int) -> None:
    deadline = time.monotonic() + 10
    while sampler._on_the_way < sent and time.monotonic() < deadline:
        _offer(sampler, np.zeros((1, 4), np.float32))
        time.sleep(0.002)


def test_no_more_are_on_the_way_than_the_shadow_is_done_with(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    outlet, inlet = pair
    sampler = Sampler(outlet)
    _offer(sampler, np.zeros(1))  # a rate of 0 until told otherwise
    sampler.rate = 1.0
    _offer_until(sampler, ON_THE_WAY)
    for _ in range(50):
        _offer(sampler, np.zeros(1))
        time.sleep(0.001)
    received = 0
    inlet.settimeout(0.2)
    with pytest.raises(TimeoutError):
        while True:
            assert samples.receive(inlet) is not None
            received += 1
    assert received == ON_THE_WAY
    inlet.send(samples.DONE)
    assert _arrives(sampler, inlet)
    assert not _arrives(sampler, inlet)
    monkeypatch.setattr(sampling, "FORGOTTEN_S", 0.0)  # the shadow has died without a word
    assert _arrives(sampler, inlet)


def _arrives(sampler: Sampler, inlet: socket.socket) -> bool:
    for _ in range(5):  # one may be offered while the one before is still being copied
        _offer(sampler, np.zeros(1))
        with suppress(TimeoutError):
            return samples.receive(inlet) is not None
    return False


def test_offering_takes_no_time_while_nobody_reads(pair: Pair) -> None:
    sampler = Sampler(pair[0])
    sampler.rate = 1.0
    large = [np.zeros(samples.SAMPLE_BYTES // 8, np.float32)]
    began = time.thread_time()
    for _ in range(1000):
        _offer(sampler, *large)
    # A thousand copies of 8 MiB would take seconds; a thousand comparisons take well below a millisecond each. Of this
    # thread's own time: a busy machine must not fail this.
    assert time.thread_time() - began < 0.5
    assert threading.active_count() < 20


def _variant(*outputs: str, top1: bool) -> Variant:
    tolerances = tuple(Tolerance(output=name, min_top1_agreement=0.9 if top1 else None) for name in outputs)
    specs = tuple(TensorSpec(name=name, datatype="FP32", shape=(-1, 3)) for name in outputs)
    return VARIANT.model_copy(update={"outputs": specs, "tolerances": tolerances})


SCORES = np.array([[0.1, 0.8, 0.1], [0.6, 0.3, 0.1]], np.float32)


def test_class_scores_differ_in_their_largest_entry() -> None:
    comparison = Comparison(_variant("y", top1=True), _variant("y", top1=True), 20.0)
    assert comparison.difference([SCORES], [SCORES * np.float32(0.5)]) == 0.0
    assert comparison.difference([SCORES], [SCORES[:, ::-1]]) == 0.5  # one row of two
    assert comparison.difference([SCORES], [SCORES[:1]]) == 1.0
    assert comparison.difference([SCORES], [np.full_like(SCORES, np.nan)]) == 1.0


def test_other_outputs_differ_beyond_a_distance() -> None:
    comparison = Comparison(_variant("y", top1=False), _variant("y", top1=False), 20.0)
    assert comparison.difference([SCORES], [SCORES * np.float32(1.05)]) == 0.0  # 26 dB
    assert comparison.difference([SCORES], [SCORES * np.float32(1.2)]) == 1.0  # 14 dB
    assert comparison.difference([SCORES], [SCORES]) == 0.0
    assert comparison.difference([np.array([1, 2, 3, 4])], [np.array([1, 2, 3, 5])]) == 0.25


def test_outputs_are_compared_by_name_and_the_worst_counts() -> None:
    comparison = Comparison(_variant("a", "b", top1=True), _variant("b", "c", "a", top1=True), 20.0)
    assert comparison.outputs == ["b", "a"]
    assert comparison.difference([SCORES, SCORES], [SCORES, SCORES * 9, SCORES[:, ::-1]]) == 0.5
    assert Comparison(_variant("a", top1=True), _variant("b", top1=True), 20.0).outputs == []
