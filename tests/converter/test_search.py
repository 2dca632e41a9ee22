"""The search against networks whose noise is known: a node's quality loss is given, and losses add up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.quality import TOP1, OutputScore, Score
from autoglm_edge_converter.recipes import Candidate, Recipe, Tuned
from autoglm_edge_converter.search import Demand, Sensitivity, Stage, Trial, safe, search, within
from autoglm_edge_converter.search.ladder import densest_first, float_counts, ladder, saving
from autoglm_edge_converter.search.sensitivity import Noise, first_groups, rank_nodes
from autoglm_edge_converter.search.trials import standard_error
from autoglm_edge_converter.search.tuning import tune

CANDIDATES = (Candidate(Recipe("min-max")), Candidate(Recipe("percentile")))


def scored(drop: float, sqnr_db: float | None = 30.0, samples: int = 10_000) -> Score:
    return Score((OutputScore("y", TOP1, 1 - drop, sqnr_db, finite=True),), samples)


class Network:
    """Quantizing a node costs its loss; a recipe multiplies all losses; nodes in `broken` crash what holds them."""

    def __init__(
        self, losses: dict[str, float], broken: Sequence[str] = (), factor: float = 1.0, patience: int = 10**6
    ) -> None:
        self.losses = losses
        self.broken = set(broken)
        self.factor = {"min-max": 1.0, "percentile": factor}
        self.patience = patience
        self.ranked = 0

    def attempt(self, candidates: Sequence[Candidate]) -> list[Trial]:
        return [self._attempt(candidate) for candidate in candidates]

    def _attempt(self, candidate: Candidate) -> Trial:
        self.patience -= 1
        quantized = set(self.losses) - set(candidate.float_nodes)
        if quantized & self.broken:
            return Trial(candidate, None, problem="crashed")
        drop = min(1.0, sum(self.losses[node] for node in quantized) * self.factor[candidate.recipe.ranges])
        return Trial(candidate, scored(drop, 40 - 100 * drop))

    def rank(self, candidate: Candidate) -> list[Sensitivity]:
        self.ranked = len(self.losses)
        return [
            Sensitivity(node, "Conv", None, 0.0, "crashed")
            if node in self.broken
            else Sensitivity(node, "Conv", 40 - 100 * loss, 1 - loss)
            for node, loss in self.losses.items()
        ]

    def activations(self, candidate: Candidate) -> tuple[str, ...]:
        return ()

    def noise(self, candidates: Sequence[Candidate]) -> list[float]:
        return [0.0 for _ in candidates]

    def out_of_time(self, stage: Stage) -> bool:
        return self.patience <= 0

    def search(self, max_drop: float) -> Trial | None:
        return search(CANDIDATES, dict.fromkeys(self.losses, 1.0), Demand(max_drop), self).found


def test_a_whole_graph_safely_within_the_budget_needs_no_sensitivity() -> None:
    network = Network({"a": 0.002, "b": 0.002}, factor=0.5)
    found = network.search(0.01)
    assert found is not None
    assert found.candidate == Candidate(Recipe("percentile"))
    assert network.ranked == 0


def test_the_worst_nodes_stay_in_float_and_few_more() -> None:
    losses = {f"n{i}": 0.0005 for i in range(8)} | {"bad": 0.2, "worse": 0.3}
    found = Network(losses, factor=2.0).search(0.01)
    assert found is not None
    assert {"bad", "worse"} <= set(found.candidate.float_nodes)
    assert len(found.candidate.float_nodes) <= 4
    assert found.candidate.recipe == Recipe("min-max")


def test_nodes_that_cannot_be_quantized_leave_first() -> None:
    losses = {f"n{i}": 0.0 for i in range(6)} | {"odd": 0.0}
    found = Network(losses, broken=["odd"]).search(0.01)
    assert found is not None
    assert "odd" in found.candidate.float_nodes


def test_nothing_is_found_where_nothing_is_good_enough() -> None:
    assert Network(dict.fromkeys("abcdefgh", 0.3)).search(0.01) is None


def test_time_ends_the_search_with_what_was_found_by_then() -> None:
    losses = {f"n{i}": 0.01 for i in range(30)}
    network = Network(losses, patience=3)
    result = search(CANDIDATES, dict.fromkeys(losses, 1.0), Demand(0.05), network)
    assert result.out_of_time
    assert len(result.trials) <= 2 + 2


def test_a_candidate_that_saves_no_work_is_not_tried() -> None:
    assert list(ladder(["big", "small"], {"big": 99.0, "small": 1.0})) == []
    assert saving((), {"a": 1.0}) > saving(("a",), {"a": 1.0}) == 0.0


def test_a_quiet_large_node_stays_on_8_bits_longer_than_a_noisy_small_one() -> None:
    large, small = Sensitivity("large", "Conv", 20.0, 0.9), Sensitivity("small", "Conv", 22.0, 0.9)
    assert [entry.node for entry in densest_first([large, small], {"large": 100.0, "small": 1.0})] == ["small", "large"]


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0, 0.5), min_size=1, max_size=30))
def test_what_is_found_keeps_the_budget(losses: dict[str, float]) -> None:
    found = Network(losses).search(0.05)
    if found is not None:
        assert found.score is not None
        assert found.score.drop <= 0.05 + 0.5 / found.score.samples + 1e-9


@given(st.integers(0, 500))
def test_steps_grow_and_never_leave_out_everything(nodes: int) -> None:
    counts = float_counts(nodes)
    assert list(counts) == sorted(set(counts))
    assert all(0 < count < nodes for count in counts)
    assert len(counts) <= 16


@given(st.floats(0, 0.2), st.integers(1, 10_000), st.floats(0, 0.2))
def test_safe_is_stricter_than_within_and_more_samples_never_hurt(drop: float, samples: int, budget: float) -> None:
    trial = Trial(CANDIDATES[0], scored(drop, samples=samples))
    assert within(trial, budget) or not safe(trial, budget)
    more = Trial(CANDIDATES[0], scored(drop, samples=samples * 4))
    assert safe(more, budget) or not safe(trial, budget)
    assert trial.score is not None
    assert math.isclose(standard_error(trial.score), math.sqrt(trial.score.drop * (1 - trial.score.drop) / samples))


@pytest.mark.parametrize(
    ("samples", "lost", "worthwhile"), [(93, 1, True), (93, 2, False), (10, 1, False), (150, 2, True)]
)
def test_the_budget_of_the_search_is_in_whole_samples(samples: int, lost: int, worthwhile: bool) -> None:
    assert within(Trial(CANDIDATES[0], scored(lost / samples, samples=samples)), 0.01) is worthwhile


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_every_node_is_ranked_and_the_noisiest_stands_alone(powers: list[float]) -> None:
    noise = {f"n{index}": power for index, power in enumerate(powers)}

    def measure(groups: Sequence[tuple[str, ...]]) -> list[Noise]:
        totals = [sum(noise[name] for name in group) for group in groups]
        return [Noise(-10 * math.log10(total) if total > 0 else None, 1.0) for total in totals]

    found = rank_nodes(list(noise), measure, lambda: False)
    assert set(found) == set(noise)
    for name, power in noise.items():
        assert math.isclose(found[name].power, power, rel_tol=1e-6, abs_tol=1e-300)


@given(st.integers(1, 2000))
def test_groups_are_neighbours_and_few(count: int) -> None:
    nodes = [f"n{index}" for index in range(count)]
    groups = first_groups(nodes)
    assert [name for group in groups for name in group] == nodes
    assert len(groups) <= 48


def test_out_of_time_a_group_shares_its_noise() -> None:
    calls: list[int] = []

    def measure(groups: Sequence[tuple[str, ...]]) -> list[Noise]:
        calls.append(len(groups))
        return [Noise(20.0, 1.0) for _ in groups]

    found = rank_nodes([f"n{index}" for index in range(96)], measure, lambda: len(calls) >= 24)
    assert len(found) == 96
    # Half of 20 dB each: 3 dB quieter.
    assert math.isclose(found["n0"].sqnr_db or 0.0, 23.0103, abs_tol=1e-3)


def test_tuning_keeps_only_what_makes_the_answers_less_noisy() -> None:
    def noise(candidates: Sequence[Candidate]) -> list[float]:
        levels = []
        for candidate in candidates:
            factors = {entry.tensor: entry for entry in candidate.tuned}
            level = 20 - 10 * abs(factors.get("a", Tuned("a")).high - 0.6)
            levels.append(level - 10 * abs(factors.get("b", Tuned("b")).low - 1.0))
        return levels

    tuned = tune(CANDIDATES[0], ["a", "b"], noise, lambda: False)
    assert tuned.tuned == (Tuned("a", high=0.6),)
    assert tune(CANDIDATES[0], ["a"], noise, lambda: True) == CANDIDATES[0]
