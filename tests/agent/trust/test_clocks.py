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


def test_the_release_is_not_of_the_future() -> None:
    assert NOW - 5 * 365 * DAY_S < RELEASED_AT <= NOW


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


async def test_a_clock_at_1970_goes_by_the_newest_signature(device: GatedDevice) -> None:
    device.clock_s = 0.0
    assert device.gate.time() == RELEASED_AT
    assert await device.code(device.signed(1, reference(), signed_at=NOW)) == "accepted"
    assert device.gate.time() == NOW
    device.restart()
    assert device.gate.time() == NOW, "the floor is kept"
    late = device.signed(2, reference(), signed_at=NOW - 2 * DAY_S, expires_at=NOW - DAY_S)
    assert await device.code(late) == "expired", "it expired before the newest signature that was seen"


async def test_a_clock_at_1970_notices_that_the_metadata_is_older_than_the_directors_word(device: GatedDevice) -> None:
    device.clock_s = 0.0
    frozen = device.signed(1, reference(), signed_at=NOW + 40 * DAY_S)  # the timestamp expires after 30 days
    assert await device.code(frozen) == "metadata-expired"
    assert device.gate.time() == RELEASED_AT, "what is refused moves no floor"


@pytest.mark.parametrize("clock_s", [FAR, 1e300, LATEST_S], ids=["fifty years", "absurd", "the latest"])
async def test_a_clock_far_ahead_refuses_and_forgets(device: GatedDevice, clock_s: float) -> None:
    message = device.signed(1, reference())
    device.clock_s = clock_s
    assert await device.code(message) in ("expired", "metadata-expired")
    assert await device.code(device.signed(1, reference(), expires_at=LATEST_S)) == "metadata-expired"
    device.restart()
    device.clock_s = NOW
    assert await device.code(message) == "replayed" or await device.code(device.signed(1, reference())) == "accepted"
    assert device.gate.time() < FAR


async def test_a_director_far_ahead_cannot_push_the_floor_beyond_the_timestamp(device: GatedDevice) -> None:
    await device.gate.desired(device.signed(1, reference()))
    expires_s = device.repository.timestamp.expires.timestamp()
    assert await device.command_code(device.message(command(), signed_at=FAR)) == "accepted"
    assert device.gate.time() <= expires_s
    assert await device.code(device.message(desired(2, reference()), signed_at=FAR)) == "metadata-expired"
    device.repository.now += 10 * DAY_S
    device.repository.publish()
    assert await device.code(device.message(desired(2, reference()), signed_at=NOW + DAY_S)) == "accepted"
