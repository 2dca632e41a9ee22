from __future__ import annotations

from collections import deque

import pytest

from autoglm_edge_agent.updates.straggling import FAR_BEHIND_BLOCKS, STREAM_WINDOW_BLOCKS, Straggling

CREDIT_BLOCKS = 32
WORD = -1


def left_after(blocks_per_step: float, count: int = 2000) -> int | None:
    """Let a stream of a block a step go to a device that takes `blocks_per_step`; returns the longest queue it had when
    it left, None when it never did."""
    straggling, queue, room = Straggling(), deque[int](), 0.0
    last = 0
    for block in range(count):
        queue.append(block)
        room += blocks_per_step
        while queue and room >= 1:
            taken = queue.popleft()
            if taken == WORD:
                straggling.acknowledged()
                continue
            room -= 1
            straggling.passed()
            if straggling.is_far_behind:
                return len(queue)
            if taken - last >= CREDIT_BLOCKS and not straggling.waits:
                last = taken
                straggling.asked()
                queue.append(WORD)
    return None


@pytest.mark.parametrize("blocks_per_step", [0.8, 0.95, 1.0, 1.5, 10.0])
def test_who_keeps_up_stays(blocks_per_step: float) -> None:
    assert left_after(blocks_per_step) is None


@pytest.mark.parametrize("blocks_per_step", [0.1, 0.3, 0.6])
def test_who_does_not_leaves_before_much_waits_for_it(blocks_per_step: float) -> None:
    waited = left_after(blocks_per_step)
    assert waited is not None
    # What came while it could not know: two rounds of as many blocks as it bears, at the rate of the stream.
    assert waited < 2 * (FAR_BEHIND_BLOCKS + CREDIT_BLOCKS) / blocks_per_step


def test_a_window_before_the_brokers_word_is_borne_and_a_word_ends_the_count() -> None:
    straggling = Straggling()
    borne = []
    for _ in range(3):
        straggling.asked()
        for _ in range(STREAM_WINDOW_BLOCKS):
            straggling.passed()
        borne.append((straggling.waits, straggling.is_far_behind))
        straggling.acknowledged()
    assert borne == [(True, False)] * 3
    for _ in range(2 * FAR_BEHIND_BLOCKS):
        straggling.passed()
    assert (straggling.waits, straggling.is_far_behind) == (False, False), "nothing was asked"
