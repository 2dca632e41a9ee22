"""Pruning with training: the schedule, and what is left of a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.converter.torch.road import NETWORKS, feed_of, go

from autoglm_edge_converter.roads.pruning_schedule import LARGEST_CHANNEL_RATIO, Schedule, channel_ratio
from autoglm_edge_converter.runners import open_runner


@given(st.floats(0.01, 0.99), st.integers(1, 100))
def test_a_schedule_grows_to_its_budget(budget: float, steps: int) -> None:
    targets = Schedule(budget, steps).targets()
    assert len(targets) == steps
    assert list(targets) == sorted(targets)
    assert targets[-1] == pytest.approx(budget)


@pytest.mark.parametrize(("budget", "steps"), [(0.0, 1), (1.0, 1), (float("nan"), 1), (0.5, 0), (0.5, 101)])
def test_a_schedule_that_cannot_be_had_is_refused(budget: float, steps: int) -> None:
    with pytest.raises(ValueError, match=r"fraction|steps"):
        Schedule(budget, steps)


@given(st.floats(0.0, 0.98))
def test_the_ratio_reaches_what_is_wanted(wanted: float) -> None:
    ratio = channel_ratio(wanted, lambda r: 1 - (1 - r) ** 2)
    # The bisection ends at a thousandth of its range.
    assert 1 - (1 - ratio) ** 2 >= wanted
    assert ratio == pytest.approx(1 - (1 - wanted) ** 0.5, abs=2e-3)


def test_more_than_can_be_had_gives_the_largest_ratio() -> None:
    assert channel_ratio(0.9, lambda r: r / 2) == LARGEST_CHANNEL_RATIO


@pytest.mark.slow
def test_a_pruned_network_keeps_its_ports_and_loses_about_the_budget(tmp_path: Path) -> None:
    found = go(
        *("resnet", tmp_path, {"input": (1, 3, 32, 32)}, ("onnx",)),
        finetune=f"{NETWORKS}:train",
        prune="0.4",
        prune_steps="2",
    )
    whole, pruned = found.renditions
    assert whole.pruning == 0
    # One channel of this network is up to 5 % of its multiplications.
    assert 0.4 <= pruned.pruning <= 0.46
    assert pruned.path is not None
    assert whole.path is not None
    assert pruned.path.stat().st_size < whole.path.stat().st_size
    (answer,) = open_runner(pruned.path).run(feed_of(found))
    assert answer.shape == (1, 10)
