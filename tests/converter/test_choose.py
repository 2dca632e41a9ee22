"""Which candidates are timed, and which of them is judged first."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from autoglm_edge_converter.choose import (
    AS_FAST,
    CLEARER_DB,
    Limits,
    clearest_db,
    doubt_reported,
    fastest_first,
    is_slower,
    refuse_reported,
    refuse_search,
    shortlist,
    smallest_first,
    steps_up,
    worth_judging,
)
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.making import in_speeds_of
from autoglm_edge_converter.metrics.shares import wilson
from autoglm_edge_converter.plan import plan_for
from autoglm_edge_converter.quality import TOP1, Figure, OutputScore, Score
from autoglm_edge_converter.recipes import DYNAMIC, HALF, WEIGHTS, Candidate, Recipe
from autoglm_edge_converter.results import Considered, Measured, Options
from autoglm_edge_converter.search import Demand, SearchResult, Trial
from autoglm_edge_converter.selection import Selection
from autoglm_edge_converter.shipping import (
    tell_of_elsewhere,
    tell_of_float_arithmetic,
    tell_of_limits,
    why_not_pruned,
)
from autoglm_edge_converter.split import split


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


def test_a_second_round_keeps_what_the_first_refused_under_names_of_its_own() -> None:
    lost = replace(considered("onnx-candidate-0", 2.0, 30), outcome="it loses 3.00 % on the acceptance samples")
    left = considered("onnx-candidate-1", 0.9, 30, Recipe("percentile"))
    first = Selection([lost, left], {}, {}, {})
    second = Selection([], {}, {}, {})
    second.remember(first)
    assert second.considered == [lost]
    again = Selection([considered("onnx-stricter-0", 2.0, 30)], {}, {}, {})
    again.remember(first)
    assert [entry.form for entry in again.considered] == ["onnx-stricter-0"]


def test_after_a_refusal_only_clearer_answers_are_judged_and_nothing_twice() -> None:
    lost, clearer, hardly = (trial(Recipe(name), sqnr_db=db) for name, db in (("a", 29.0), ("b", 35.5), ("c", 34.0)))
    halves = trial(Recipe(family=HALF), sqnr_db=20.0)
    first = Selection([Considered(lost, "x", 100, None, 2.0, "it loses 3.00 % on the acceptance samples")], {}, {}, {})
    assert first.turned_down == (lost,)
    demand = Demand(0.01, clearest_db(first.turned_down) + CLEARER_DB)
    assert worth_judging([lost, clearer, hardly, halves], demand, {lost.candidate}) == (clearer, halves)
    assert clearest_db([halves]) == -math.inf
    assert demand.met(clearer) and not demand.met(hardly)


def test_speeds_of_formats_that_were_timed_apart_are_brought_to_one_base() -> None:
    score = Score((OutputScore("y", TOP1, 1.0, 30.0, finite=True),), 10)
    item = Measured("tflite-candidate-0", "int8", Path("m.tflite"), 100, score, None, 2.0, None)
    assert in_speeds_of(item, {"onnx": 1.0, "tflite": 0.5}).speedup == pytest.approx(1.0)


def sized(entry: Considered, size_bytes: int) -> Considered:
    return replace(entry, size_bytes=size_bytes)


def test_steps_up_are_those_on_the_front_that_answer_clearly_better() -> None:
    pruned = sized(considered("pruned", 4.6, 20), 60)
    plain, mixed = considered("plain", 2.9, 37), considered("mixed", 1.8, 48)
    dull = considered("hardly better", 2.5, 38)
    slow = considered("slower than float", 0.9, 70)
    assert [entry.form for entry in steps_up([mixed, slow, dull, plain], [pruned])] == [
        "plain",
        "hardly better",
        "mixed",
    ]
    assert [entry.form for entry in steps_up([mixed, slow, dull], [pruned, plain])] == ["mixed"]
    assert steps_up([slow, dull], [pruned, plain, mixed]) == ()


def test_fewer_errors_count_more_than_less_noise() -> None:
    lossy = Considered(trial(Recipe(), drop=0.02, sqnr_db=40), "lossy", 100, None, 3.0)
    exact = Considered(trial(Recipe(), drop=0.0, sqnr_db=35), "exact", 100, None, 2.0)
    assert steps_up([exact], [lossy]) == (exact,)
    assert steps_up([lossy], [replace(exact, speedup=3.0)]) == ()


def test_where_8_bit_weights_are_all_that_is_shipped_it_is_said_why_nothing_computes_on_8_bits() -> None:
    slow = replace(considered("candidate-0", 0.7, 35), outcome="it is slower than float here (0.70 times its speed)")
    slower = replace(considered("candidate-1", 0.6, 36, Recipe(followers=False)), outcome="it is slower still")
    weights = replace(considered("int8-weights", 1.0, 40, Recipe(family=WEIGHTS)), outcome="shipped")
    entries = [slower, slow, weights]

    def told(result: SearchResult, *shipped: str) -> str | None:
        return tell_of_float_arithmetic(result, 0.01, entries, shipped)

    result = SearchResult(None, tuple(entry.trial for entry in entries))
    assert slow.outcome in (told(result, "fp32", "int8-weights") or "")
    lossy = SearchResult(None, (trial(Recipe(), drop=0.3), weights.trial))
    assert "the best of 1 candidates loses 30.00%" in (told(lossy, "int8-weights") or "")
    assert told(result, "fp32") is None
    assert told(result, "int8-weights", "candidate-0") is None


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(0.01), None),
        (Limits(0.01, 100, 500.0), None),
        (Limits(0.01, 99), "--max-size (100 bytes)"),
        (Limits(0.01, 99, 499.0), "--max-size (100 bytes) and --max-latency-ms (0.5 ms)"),
    ],
)
def test_a_float_variant_over_the_limits_is_told_of(limits: Limits, words: str | None) -> None:
    score = Score((OutputScore("y", TOP1, 1.0, 30.0, finite=True),), 10)
    told = tell_of_limits(Measured("fp32", "fp32", Path("m.onnx"), 100, score, Timing(500.0, 500.0), 1.0, None), limits)
    assert (told is None) == (words is None)
    assert words is None or words in (told or "")


def test_why_nothing_could_be_run_is_not_that_another_candidate_stands_for_it() -> None:
    stood_for = Trial(Candidate(Recipe(followers=False)), None, problem="not tried: it changes nothing in this graph")
    other_length = Trial(Candidate(Recipe()), None)
    said = refuse_search(SearchResult(None, (stood_for, other_length)), 0.01)
    assert said == "no candidate could be run: none gave finite answers as long as the original's"
    crashed = replace(other_length, problem="the runtime crashed")
    assert "the runtime crashed" in (refuse_search(SearchResult(None, (stood_for, crashed)), 0.01) or "")


def test_where_other_8_bits_are_shipped_it_is_said_why_nothing_is_for_the_targets_own_instructions() -> None:
    outcome = "it loses 3.00% on the acceptance samples"
    lost = replace(considered("candidate-0", 0.6, 35), outcome=outcome, unknown_on=("aarch64",))
    dynamic = replace(considered("int8-dynamic", 1.2, 40, Recipe(family=DYNAMIC)), outcome="shipped")
    said = tell_of_elsewhere([lost, dynamic], ["fp32", "int8-dynamic"]) or ""
    assert "aarch64" in said
    assert outcome in said
    assert tell_of_elsewhere([lost, dynamic], ["fp32"]) is None  # that nothing is on 8 bits is said elsewhere
    assert tell_of_elsewhere([lost, dynamic], ["int8-dynamic", "candidate-0"]) is None
    assert tell_of_elsewhere([dynamic], ["int8-dynamic"]) is None


def reported(wrong: int, samples: int, finite: bool = True) -> Score:
    right = samples - wrong
    low, high = wilson(right, samples)
    output = OutputScore("y", TOP1, right / samples, 30.0, finite)
    return Score((output,), samples, Figure(TOP1, right / samples, 1.0, low, high))


@pytest.mark.parametrize(
    ("wrong", "samples", "doubted", "refused"),
    [(0, 25, False, False), (1, 25, True, False), (5, 25, True, True), (4, 500, False, False), (8, 500, True, False),
     (15, 500, True, True)],
)  # fmt: skip
def test_the_final_samples_doubt_what_chance_explains_and_withdraw_the_rest(
    wrong: int, samples: int, doubted: bool, refused: bool
) -> None:
    score = reported(wrong, samples)
    assert (doubt_reported(score, 0.01) is not None) == doubted
    assert (refuse_reported(score, 0.01) is not None) == refused


def test_answers_that_are_not_finite_are_withdrawn() -> None:
    assert "NaN" in (refuse_reported(reported(0, 500, finite=False), 0.01) or "")


@pytest.mark.parametrize(
    ("speed", "noise", "slower"),
    [(0.98, 0.005, True), (0.98, 0.025, False), (0.88, 0.2, True), (1.0, 0.0, False), (0.999, 0.0, True)],
)
def test_slower_than_float_is_what_the_noise_of_the_comparison_does_not_explain(
    speed: float, noise: float, slower: bool
) -> None:
    entry = replace(considered("small", speed, 50, Recipe(family=WEIGHTS)), noise=noise)
    assert is_slower(entry) == slower
    assert (smallest_first([entry], 1000) == ()) == slower
    assert smallest_first([entry], 1000, slower_allowed=True) == (entry,)


def test_it_is_said_why_nothing_is_pruned_where_so_much_was_to_be() -> None:
    whole = considered("fp32", 1.0, 100)
    fast = replace(considered("candidate-0", 3.0, 10), outcome="it loses 9.00% of accuracy")
    cut_off = replace(fast.trial.candidate, graph="pruned, 40% less")
    pruned = replace(fast, trial=replace(fast.trial, candidate=cut_off))
    plan = plan_for(Options(prune="0.4"), split(100, 0), [])
    assert why_not_pruned(plan, [whole, pruned], ["fp32"]) == "it loses 9.00% of accuracy"
    assert why_not_pruned(plan, [whole, pruned], ["fp32", "candidate-0"]) is None
    assert why_not_pruned(replace(plan, prune="auto"), [whole, pruned], ["fp32"]) is None, "as far as is useful"
    assert why_not_pruned(replace(plan, prune="off"), [whole, pruned], ["fp32"]) is None
