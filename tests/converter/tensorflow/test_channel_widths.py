"""Which channels are kept: never a whole group gone, never more of them for a larger ratio."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.roads.channel_widths import Candidates, multiple_of, width

GROUPS = st.lists(st.integers(1, 100), min_size=1, max_size=5)


def _candidates(sizes: list[int], seed: int) -> Candidates:
    group = np.repeat(np.arange(len(sizes)), sizes)
    return Candidates(np.random.default_rng(seed).random(len(group)), group)


@given(GROUPS, st.integers(0, 9), st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_larger_ratio_keeps_some_of_what_a_smaller_one_keeps(
    sizes: list[int], seed: int, one: float, other: float
) -> None:
    candidates = _candidates(sizes, seed)
    more, fewer = candidates.kept(min(one, other)), candidates.kept(max(one, other))
    assert (more | ~fewer).all()
    assert candidates.kept(0.0).all()


@given(GROUPS, st.integers(0, 9), st.floats(0, 0.9))
def test_each_group_keeps_its_best_and_a_tenth(sizes: list[int], seed: int, ratio: float) -> None:
    candidates = _candidates(sizes, seed)
    kept = candidates.kept(ratio)
    for number, size in enumerate(sizes):
        members = candidates.group == number
        assert kept[members].sum() >= max(1, size / 10)
        gone = candidates.importance[members & ~kept]
        assert not gone.size or gone.max() < candidates.importance[members & kept].min()


@given(st.integers(1, 2000), st.data())
def test_widths_are_multiples_up_to_the_whole(whole: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, whole))
    found = width(whole, wanted)
    assert wanted <= found <= whole
    assert found == whole or found % multiple_of(whole) == 0


def test_narrow_layers_have_fine_steps() -> None:
    assert [multiple_of(size) for size in (3, 16, 24, 64, 1000)] == [1, 2, 2, 8, 8]
