"""The search against networks whose noise is known: a node's quality loss is given, and losses add up."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.quality import TOP1, OutputScore, Score
from autoglm_edge_converter.recipes import Candidate, Recipe
from autoglm_edge_converter.search import (
    Sensitivity,
    Trial,
    float_counts,
    ladder,
    noisiest_first,
    saving,
    search,
)

RECIPES = (Recipe("min-max"), Recipe("percentile"))


def scored(drop: float, sqnr_db: float | None = 30.0) -> Score:
    return Score((OutputScore("y", TOP1, 1 - drop, sqnr_db, finite=True),), 100)


class Network:
    """Quantizing a node costs its loss; a recipe multiplies all losses; nodes in `broken` crash what holds them."""

    def __init__(self, losses: dict[str, float], broken: Sequence[str] = (), factor: float = 1.0) -> None:
        self.losses = losses
        self.broken = set(broken)
        self.factor = {"min-max": 1.0, "percentile": factor}
        self.asked: list[Candidate] = []

    def attempt(self, candidate: Candidate) -> Trial:
        self.asked.append(candidate)
        quantized = set(self.losses) - set(candidate.float_nodes)
        if quantized & self.broken:
            return Trial(candidate, None, problem="crashed")
        drop = sum(self.losses[node] for node in quantized) * self.factor[candidate.recipe.ranges]
        return Trial(candidate, scored(drop, 40 - 100 * drop))

    def rank(self, recipe: Recipe) -> tuple[Sensitivity, ...]:
        return noisiest_first(
            [
                Sensitivity(node, "Conv", None, 0.0, "crashed")
                if node in self.broken
                else Sensitivity(node, "Conv", 40 - 100 * loss, 1 - loss)
                for node, loss in self.losses.items()
            ]
        )

    def search(self, max_drop: float) -> tuple[Trial | None, int]:
        result = search(RECIPES, dict.fromkeys(self.losses, 1.0), max_drop, self.attempt, self.rank)
        return result.found, len(result.sensitivities)


def test_a_whole_graph_within_the_budget_needs_no_sensitivity() -> None:
    network = Network({"a": 0.002, "b": 0.002}, factor=0.5)
    found, ranked = network.search(0.01)
    assert found is not None
    assert found.candidate == Candidate(Recipe("percentile"))
    assert ranked == 0


def test_the_worst_nodes_stay_in_float_and_no_more() -> None:
    losses = {f"n{i}": 0.001 for i in range(8)} | {"bad": 0.2, "worse": 0.3}
    found, ranked = Network(losses, factor=2.0).search(0.01)
    assert found is not None
    assert set(found.candidate.float_nodes) == {"bad", "worse"}
    assert found.candidate.recipe == Recipe("min-max")
    assert ranked == 10


def test_nodes_that_cannot_be_quantized_leave_first() -> None:
    losses = {f"n{i}": 0.0 for i in range(6)} | {"odd": 0.0}
    found, _ = Network(losses, broken=["odd"]).search(0.01)
    assert found is not None
    assert found.candidate.float_nodes == ("odd",)


def test_nothing_is_found_where_nothing_is_good_enough() -> None:
    found, _ = Network(dict.fromkeys("abcdefgh", 0.3)).search(0.01)
    assert found is None


def test_a_candidate_that_saves_no_work_is_not_tried() -> None:
    assert list(ladder(["big", "small"], {"big": 99.0, "small": 1.0})) == []
    assert saving((), {"a": 1.0}) > saving(("a",), {"a": 1.0}) == 0.0


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0, 0.5), min_size=1, max_size=30))
def test_what_is_found_keeps_the_budget(losses: dict[str, float]) -> None:
    found, _ = Network(losses).search(0.05)
    if found is not None:
        assert found.score is not None
        assert found.score.drop <= 0.05 + 1e-9


@given(st.integers(0, 500))
def test_steps_grow_and_never_leave_out_everything(nodes: int) -> None:
    counts = float_counts(nodes)
    assert list(counts) == sorted(set(counts))
    assert all(0 < count < nodes for count in counts)
    assert len(counts) <= 16
