"""Boards whose clock is wrong: at 1970 before the network is up, years ahead, or not a time at all."""

from __future__ import annotations

import math
import time

import pytest
from tests.agent.trust.devices import GatedDevice, command, desired, reference
from tests.fakes.signing import DAY_S

from autoglm_edge_agent.released import RELEASED_AT
from autoglm_edge_agent.trust.decision import LATEST_S, reference_time
from autoglm_edge_agent.trust.memory import Memory

NOW = time.time()
FAR = NOW + 50 * 365 * DAY_S


FIRST_RELEASE_S = 1_795_392_000.0
"""2026-11-23 00:00 UTC."""


def test_the_release_is_of_a_day_that_has_been() -> None:
    assert RELEASED_AT % DAY_S == 0 and FIRST_RELEASE_S <= RELEASED_AT <= NOW


@pytest.mark.parametrize(
    ("clock_s", "floor_s", "signed_s", "expected"),
    [
        (0.0, 100.0, 50.0, 100.0),
        (0.0, 100.0, 150.0, 150.0),
        (200.0, 100.0, 150.0, 200.0),
        (-5.0, 0.0, 0.0, 0.0),
        (math.nan, 7.0, 0.0, 7.0),
        (math.inf, 7.0, 0.0, 7.0),
        (1e300, 0.0, 0.0, LATEST_S),
    ],
)
def test_the_time_that_counts(clock_s: float, floor_s: float, signed_s: float, expected: float) -> None:
    assert reference_time(clock_s, Memory(time_floor=floor_s), signed_s) == expected


@pytest.mark.parametrize("clock_s", [0.0, -1e9], ids=["at 1970", "before it"])
async def test_a_clock_at_1970_goes_by_the_newest_signature(device: GatedDevice, clock_s: float) -> None:
    device.clock_s = clock_s
    assert device.gate.time() == RELEASED_AT
    assert await device.code(device.signed(1, reference(), signed_at=NOW)) == "accepted"
    assert device.gate.time() == NOW
    device.restart()
    assert device.gate.time() == NOW, "the floor is kept"
    late = device.signed(2, reference(), signed_at=NOW - 2 * DAY_S, expires_at=NOW - DAY_S)
    assert await device.code(late) == "expired", "it expired before the newest signature that was seen"
    assert device.gate.time() == NOW


async def test_time_that_stands_still_lets_late_ones_pass_and_superseded_ones_never(device: GatedDevice) -> None:
    """Signed yesterday, for an hour: who has no clock and has seen nothing newer cannot know that it is over."""
    device.clock_s = 0.0
    older = device.signed(1, reference(), signed_at=NOW - DAY_S - 60, expires_at=NOW - DAY_S + 3540)
    newer = device.signed(2, reference(), signed_at=NOW - DAY_S, expires_at=NOW - DAY_S + 3600)
    assert await device.code(newer) == "accepted"
    assert device.gate.time() == NOW - DAY_S
    assert await device.code(older) == "replayed"
    device.clock_s = NOW
    assert await device.code(newer) == "expired"
    assert await device.code(older) == "replayed"


async def test_a_clock_at_1970_notices_that_the_metadata_is_older_than_the_directors_word(device: GatedDevice) -> None:
    device.clock_s = 0.0
    frozen = device.signed(1, reference(), signed_at=NOW + 40 * DAY_S)  # the timestamp expires after 30 days
    assert await device.code(frozen) == "metadata-expired"
    assert device.gate.time() == RELEASED_AT, "what is refused moves no floor"


@pytest.mark.parametrize(
    ("clock_s", "counts_s"),
    [(FAR, FAR), (1e300, LATEST_S), (LATEST_S, LATEST_S)],
    ids=["fifty years", "absurd", "the latest"],
)
async def test_a_clock_far_ahead_refuses_and_forgets(device: GatedDevice, clock_s: float, counts_s: float) -> None:
    message = device.signed(1, reference(), signed_at=NOW)
    device.clock_s = clock_s
    assert device.gate.time() == counts_s
    assert await device.code(message) == "expired"
    assert await device.code(device.message(desired(1, reference()), expires_at=LATEST_S)) == "metadata-expired"
    assert await device.command_code(device.message(command(), expires_at=LATEST_S)) == "metadata-expired"
    device.restart()
    device.clock_s = NOW
    assert device.gate.time() == NOW, "the clock is never remembered"
    assert await device.code(message) == "accepted"
    assert device.gate.time() == NOW


async def test_a_clock_a_day_ahead_answers_commands_that_they_are_expired(device: GatedDevice) -> None:
    """The timestamp lasts longer than a command, so that a command can be told to be late, and the fleet told so."""
    message = device.message(command(), signed_at=NOW, expires_at=NOW + 3600)
    device.clock_s = NOW + DAY_S
    let_in = await device.gate.command(message)
    assert let_in.expires_at == NOW + 3600 < device.gate.time() == NOW + DAY_S
    device.clock_s = NOW
    assert device.gate.time() == NOW


async def test_a_director_far_ahead_cannot_push_the_floor_beyond_the_timestamp(device: GatedDevice) -> None:
    await device.gate.desired(device.signed(1, reference()))
    expires_s = device.repository.timestamp.expires.timestamp()
    assert await device.command_code(device.message(command(), signed_at=FAR)) == "accepted"
    assert device.gate.time() == expires_s
    assert await device.code(device.message(desired(2, reference()), signed_at=FAR)) == "metadata-expired"
    device.repository.now += 10 * DAY_S
    device.repository.publish()
    assert await device.code(device.message(desired(2, reference()), signed_at=NOW + DAY_S)) == "accepted"
    assert device.gate.time() == expires_s
