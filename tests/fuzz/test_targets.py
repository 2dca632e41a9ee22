"""Every parser of bytes from outside, with bytes that nobody foresaw: random ones, and valid ones with some changed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.fuzz.targets import TARGETS, Target, try_path, try_target


@st.composite
def _changed(draw: st.DrawFn, seed: bytes) -> bytes:
    """Valid bytes with pieces replaced, taken out or doubled."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data[start:end] = draw(
            st.one_of(st.binary(max_size=20), st.just(bytes(data[start:end]) * 2), st.just(b"9" * 30))
        )
    return bytes(data)


def _inputs(target: Target) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=400), *(_changed(seed) for seed in target.seeds))


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_nothing_is_raised_but_what_is_said(target: Target) -> None:
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(_inputs(target))
    @example(b"")
    @example(b"[" * 100_000)
    @example(b'{"schema_version": 1e400}')
    @example("\u202e\x00{}".encode())
    def attempt(data: bytes) -> None:
        try_target(target, data)

    attempt()


@pytest.mark.parametrize("target", [t for t in TARGETS.values() if t.name != "packed bundle"], ids=lambda t: t.name)
def test_what_it_begins_with_is_valid(target: Target) -> None:
    assert target.seeds
    for seed in target.seeds:
        target.run(seed)


@given(st.one_of(st.binary(max_size=100), st.text(st.sampled_from("ab./\\:~\0"), max_size=30).map(str.encode)))
def test_a_path_of_a_bundle_stays_inside(data: bytes) -> None:
    try_path(data)
