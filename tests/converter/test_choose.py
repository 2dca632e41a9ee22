"""Which candidates are timed, and which of them is judged first."""

from __future__ import annotations

from autoglm_edge_converter.choose import AS_FAST, fastest_first, shortlist
from autoglm_edge_converter.quality import TOP1, OutputScore, Score
from autoglm_edge_converter.recipes import WEIGHTS, Candidate, Recipe
from autoglm_edge_converter.results import Considered
from autoglm_edge_converter.search import Trial


def trial(recipe: Recipe, drop: float = 0.0, sqnr_db: float = 30.0, floats: tuple[str, ...] = ()) -> Trial:
    score = Score((OutputScore("y", TOP1, 1 - drop, sqnr_db, finite=True),), 1000)
    return Trial(Candidate(recipe, floats), score, 100)


def considered(form: str, speedup: float, sqnr_db: float, recipe: Recipe = Recipe()) -> Considered:  # noqa: B008
    return Considered(trial(recipe, sqnr_db=sqnr_db), form, 100, None, speedup)


def test_about_as_fast_goes_by_quality_and_slower_ones_by_speed() -> None:
    entries = [
        considered("exact", 1.4, 60),
        considered("fastest", 2.0, 20),
        considered("close", 2.0 * (1 - AS_FAST / 2), 30),
        considered("second", 1.7, 25),
        considered("no gain", 1.01, 70),
        considered("small", 3.0, 50, Recipe(family=WEIGHTS)),
    ]
    assert [entry.form for entry in fastest_first(entries)] == ["close", "fastest", "second", "exact"]
    assert fastest_first(entries[4:]) == ()


def test_one_of_each_family_is_timed_with_followers_and_without() -> None:
    best, worse = trial(Recipe("percentile"), sqnr_db=35), trial(Recipe("min-max"), sqnr_db=25)
    products = trial(Recipe("least-error", followers=False))
    even = trial(Recipe("min-max", equalise=True))
    lost = trial(Recipe("min-max", per_channel=False), drop=0.5)
    mixed = trial(Recipe("min-max"), floats=("a", "b"))
    assert set(shortlist([worse, best, products, even, lost, mixed], 0.01)) == {best, products, even, mixed}
