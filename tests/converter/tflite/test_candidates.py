"""TFLite candidates under the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS
from tests.converter.tflite.files import MBN

from autoglm_edge_converter import Options
from autoglm_edge_converter.acceptance import Acceptance, Verdict
from autoglm_edge_converter.assemble import describe
from autoglm_edge_converter.cache import Cache, FolderCache, NoCache
from autoglm_edge_converter.choose import Limits
from autoglm_edge_converter.data.reading import read_data
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.golden_set import golden_positions
from autoglm_edge_converter.laboratory import Laboratory, Timing
from autoglm_edge_converter.measure import FP32, Form, time_forms, time_together
from autoglm_edge_converter.original import FORMATS, TFLITE
from autoglm_edge_converter.plan import TFLITE_RECIPES, plan_for
from autoglm_edge_converter.processor import own_units
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.quality import TOP1, OutputScore, Score
from autoglm_edge_converter.recipes import DYNAMIC, HALF, OPTIMISED, WEIGHTS, Candidate, Recipe, Tuned
from autoglm_edge_converter.results import Considered, Measured
from autoglm_edge_converter.rungs import ELSEWHERE, fill_elsewhere, fill_rungs, for_elsewhere
from autoglm_edge_converter.search import Demand, Trial, search
from autoglm_edge_converter.searching import find
from autoglm_edge_converter.selection import Builder, Selection, consider
from autoglm_edge_converter.shipping import ship
from autoglm_edge_converter.targets import demands_of
from autoglm_edge_converter.tflite.candidates import FloatFile, TfliteCandidates
from autoglm_edge_converter.tflite.source import load_tflite
from autoglm_edge_converter.twins import Kind, Twins
from autoglm_edge_converter.workbench import Workbench, open_workbench

STATIC_INT8 = Candidate(Recipe("min-max"))


def _bench(folder: Path, workers: int, count: int = 90) -> tuple[Workbench, Laboratory]:
    folder.mkdir(exist_ok=True)
    with np.load(DIGITS / "digits32.npz") as digits:
        np.savez(folder / "s.npz", x=digits["test"][:count, :, :, None].astype(np.float32) / 255)
    source = load_tflite(MBN, {}, folder)
    data = read_data(folder / "s.npz", source.inputs, 0)
    laboratory = Laboratory(data.feeds, folder, workers)
    return open_workbench(source, data, laboratory, folder), laboratory


def _candidates(bench: Workbench, cache: Cache = NoCache(), budget_s: float = 1000) -> TfliteCandidates:  # noqa: B008
    file = FloatFile(OPTIMISED, bench.original.read_bytes())
    return TfliteCandidates([file], bench, Silent(), Deadline(budget_s), cache)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    found, laboratory = _bench(tmp_path_factory.mktemp("bench"), 2)
    with laboratory:
        yield found


def test_every_recipe_is_tried_and_scored(bench: Workbench) -> None:
    candidates: Builder = _candidates(bench)
    trials = candidates.attempt(candidates.usable([Candidate(recipe) for recipe in TFLITE_RECIPES]))
    assert len(trials) == len(TFLITE_RECIPES)
    assert [trial.problem for trial in trials] == [None] * len(trials)
    levels = {trial.candidate.recipe: trial.score.sqnr_db or 0.0 for trial in trials if trial.score}
    # As measured on the whole test set, less a decibel or two for few samples.
    assert levels[Recipe("min-max")] > 32
    assert levels[Recipe(family=WEIGHTS)] > 37
    assert levels[Recipe(family=HALF)] > 65
    assert levels[Recipe(family=DYNAMIC)] > 36


def test_what_only_onnx_can_is_not_usable(bench: Workbench) -> None:
    recipes = [Recipe(equalise=True), Recipe(signed=True), Recipe()]
    found = _candidates(bench).usable([Candidate(recipe) for recipe in recipes])
    assert found == (Candidate(Recipe()),)
    assert _candidates(bench).usable([Candidate(Recipe(), graph="pruned")]) == ()


def test_nodes_are_ranked_by_the_noise_that_each_brings_alone(bench: Workbench) -> None:
    candidates = _candidates(bench)
    ranking = candidates.rank(STATIC_INT8)
    assert {entry.node for entry in ranking} == set(candidates.work())
    assert {entry.operator for entry in ranking} == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    assert all(entry.problem is None and entry.noise > 0 for entry in ranking)
    worst = max(ranking, key=lambda entry: entry.noise)
    (whole,), (spared,) = (
        candidates.noise([entry]) for entry in (STATIC_INT8, Candidate(Recipe("min-max"), float_nodes=(worst.node,)))
    )
    assert spared > whole


def test_tuned_ranges_make_another_candidate(bench: Workbench) -> None:
    candidates = _candidates(bench)
    tensor = candidates.activations(STATIC_INT8)[0]
    (plain, squeezed) = candidates.noise([STATIC_INT8, Candidate(Recipe("min-max"), tuned=(Tuned(tensor, 0.1, 0.1),))])
    assert squeezed != plain


def test_the_search_ends_within_the_budget(bench: Workbench) -> None:
    candidates = _candidates(bench)
    result = search([STATIC_INT8, Candidate(Recipe("percentile"))], candidates.work(), Demand(0.05), candidates)
    assert result.found is not None


def test_neither_the_number_of_workers_nor_the_cache_changes_what_is_found(tmp_path: Path) -> None:
    def found(folder: str, workers: int) -> tuple[list[object], int]:
        bench, laboratory = _bench(tmp_path / folder, workers, 40)
        with laboratory:
            candidates = _candidates(bench, FolderCache(tmp_path / "cache" / str(workers)))
            trials: list[object] = [*candidates.attempt([STATIC_INT8]), candidates.rank(STATIC_INT8)]
            return trials, candidates.reused

    alone, together, again = found("a", 1), found("b", 2), found("c", 1)
    assert alone[0] == together[0] == again[0]
    assert (alone[1], together[1]) == (0, 0)
    assert again[1] > 20


def test_integer_ports_are_scored_against_the_real_numbers_of_the_original(bench: Workbench) -> None:
    file = FloatFile(OPTIMISED, bench.original.read_bytes())
    candidates = TfliteCandidates([file], bench, Silent(), Deadline(1000))
    (trial,) = candidates.attempt([Candidate(Recipe("min-max", everything=True))])
    assert trial.score is not None
    assert trial.score.sqnr_db is not None
    assert trial.score.sqnr_db > 32


@pytest.mark.slow
def test_static_int8_is_much_faster_than_float_where_the_processor_is_made_for_it(bench: Workbench) -> None:
    candidates = _candidates(bench)
    forms = [Form(FP32, FP32, bench.original)]
    for name, recipe in {"static": Recipe("min-max"), "dynamic": Recipe(family=DYNAMIC)}.items():
        forms.append(Form(name, "int8", candidates.write(Candidate(recipe), name)))
    timings, problems = time_forms(forms, bench)
    assert not problems
    # Four times as long as float while depthwise convolutions were on 8 bits; half as long again on AVX2 now.
    assert timings["dynamic"].cpu_us < 2.5 * timings[FP32].cpu_us
    # 1.75 on a quiet machine with VNNI. Without such instructions XNNPACK is slower on 8 bits than in float.
    if "vnni" in own_units() or "dotprod" in own_units():
        assert timings[FP32].cpu_us > 1.15 * timings["static"].cpu_us


def test_what_is_for_another_kind_of_processor_is_timed_again_as_its_twin(bench: Workbench) -> None:
    absent = bench.scratch / "for-another-kind.tflite"
    score = bench.score(bench.original, bench.parts.search)
    items = [Measured(name, "int8", absent, 1, score, None, 0.0, None, twin=bench.original) for name in ("a", "b")]
    again = time_together(items, "a", bench)
    assert [item.timing is not None for item in again] == [True, True]
    # The same file twice: as fast as itself, as far as a busy machine can tell.
    assert again[1].speedup == pytest.approx(1.0, rel=0.5)


@pytest.fixture(scope="module")
def elsewhere(bench: Workbench) -> Selection:
    """What is timed for boards that have more than this machine, whatever this one has."""
    file = FloatFile(OPTIMISED, bench.original.read_bytes())
    twins = Twins(Kind(False, saturates=True), Kind(False, saturates=False), ("aarch64",))
    candidates = TfliteCandidates([file], bench, Silent(), Deadline(1000), twins=twins)
    wanted = [replace(STATIC_INT8, format=TFLITE), Candidate(Recipe(family=WEIGHTS), format=TFLITE)]
    trials = candidates.attempt([*wanted, replace(wanted[0], float_nodes=("y",))])
    return consider(trials, [Form(FP32, FP32, bench.original)], candidates, bench, Limits(0.1), Silent())


def test_the_best_for_boards_that_have_more_is_shipped_however_slow_it_is_here(
    bench: Workbench, elsewhere: Selection
) -> None:
    assert {entry.unknown_on for entry in elsewhere.considered} == {("aarch64",), ()}
    acceptance = Acceptance(bench, Limits(0.1), demands_of(["rpi5"], FORMATS), golden_positions(bench))
    selection = replace(elsewhere, considered=list(elsewhere.considered), chosen=[], refused=[])
    assert not fill_elsewhere(selection, acceptance)
    fill_rungs(selection, acceptance, bench.original.stat().st_size, False, Silent())
    (found,) = [item for item in selection.chosen if item.purpose == ELSEWHERE]
    # The last layer is a thousandth of the work and brings half of the noise.
    assert found.candidate == replace(STATIC_INT8, format=TFLITE, float_nodes=("y",))
    plan = plan_for(Options(targets=("rpi5",)), bench.parts, (), [TFLITE], ("y",))
    shipped = ship(found, acceptance, plan, "tflite-fp32")
    assert shipped is not None
    assert any(note.startswith("speed on aarch64 is not known from this machine") for note in shipped.notes)
    variant = describe(shipped, bench.source)
    assert variant.latency.unknown_on == ("aarch64",)
    # What was measured is told as it was measured.
    assert variant.latency.speedup == pytest.approx(found.speedup, abs=1e-3)


@dataclass(frozen=True)
class Clear(Acceptance):
    """Samples that were held back and are harder than those of the search: they want answers with less noise."""

    least_db: float = 0.0

    def judge(self, form: Form, timings: Mapping[str, Timing]) -> Verdict:
        verdict = super().judge(form, timings)
        assert verdict.measured is not None
        level = verdict.measured.quality.sqnr_db
        unclear = level is not None and level < self.least_db
        return replace(verdict, refusal="its answers are not clear enough") if unclear else verdict


@pytest.mark.slow
@pytest.mark.parametrize("least_db", [38.0, 200.0])
def test_where_all_for_other_boards_are_refused_the_search_goes_on_for_clearer_answers(
    bench: Workbench, least_db: float
) -> None:
    file = FloatFile(OPTIMISED, bench.original.read_bytes())
    twins = Twins(Kind(False, saturates=True), Kind(False, saturates=False), ("aarch64",))
    candidates = TfliteCandidates([file], bench, Silent(), Deadline(1000), FolderCache(bench.scratch), twins=twins)
    acceptance = Clear(bench, Limits(0.1), demands_of(["rpi5"], FORMATS), golden_positions(bench), least_db=least_db)
    planned = [replace(STATIC_INT8, format=TFLITE)]
    found = find(candidates, planned, [Form(FP32, FP32, bench.original)], acceptance, Silent())
    refused = {item.candidate for item in found.selection.refused}
    assert planned[0] in refused
    assert len(refused) == len(found.selection.refused), "nothing is judged twice"
    chosen = [item for item in found.selection.chosen if item.unknown_on]
    if least_db > 100:
        assert not chosen
        return
    (only,) = chosen
    assert only.candidate is not None
    assert only.candidate.float_nodes
    assert (only.quality.sqnr_db or 0.0) >= least_db


def _entry(
    candidate: Candidate, sqnr_db: float, unknown_on: tuple[str, ...] = ("aarch64",), float_share: float = 0.0
) -> Considered:
    score = Score((OutputScore("y", TOP1, 1.0, sqnr_db, finite=True),), 1000)
    return Considered(
        Trial(candidate, score, 100), str(candidate), 100, None, 0.5, unknown_on=unknown_on, float_share=float_share
    )


def test_for_boards_that_have_more_least_stays_in_float() -> None:
    whole, clearer = _entry(Candidate(Recipe("min-max")), 30), _entry(Candidate(Recipe("percentile")), 35)
    mixed, hopping = (
        _entry(Candidate(Recipe(), ("a",)), 50, float_share=0.1),
        _entry(Candidate(Recipe(followers=False)), 60),
    )
    weights = _entry(Candidate(Recipe(family=WEIGHTS)), 60, ())
    integers = _entry(Candidate(Recipe(everything=True)), 60)
    entries = [weights, mixed, integers, hopping, whole, clearer]
    assert for_elsewhere(entries, []) == [clearer, whole, hopping, mixed]
    assert for_elsewhere(entries, [weights]) == [clearer, whole, hopping, mixed]
    assert for_elsewhere(entries, [mixed]) == [clearer, whole, hopping]
    assert for_elsewhere(entries, [whole]) == []


def test_what_no_board_notices_may_stay_in_float() -> None:
    whole, slow = _entry(Candidate(Recipe()), 30), _entry(Candidate(Recipe(), ("a",)), 50, float_share=0.1)
    free = _entry(Candidate(Recipe(), ("b", "c")), 35, float_share=0.01)
    assert for_elsewhere([slow, whole, free], []) == [free, whole, slow]
    assert for_elsewhere([whole], [free]) == []
