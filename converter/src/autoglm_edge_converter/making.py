"""Making the variants: optimise, search, time, judge. What is decided on the way goes into the findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from autoglm_edge_converter.assemble import Shipped, opset_in
from autoglm_edge_converter.cache import Cache, FolderCache, NoCache
from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.choose import NOTICEABLE, Limits, fastest_first, refuse_search, smallest_first
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.float_graphs import FloatGraph
from autoglm_edge_converter.golden_set import golden_positions
from autoglm_edge_converter.inspection import weighted_nodes
from autoglm_edge_converter.measure import FP32, ORIGINAL, Form, measure_form, time_forms
from autoglm_edge_converter.optimise import PassOutcome, optimise
from autoglm_edge_converter.passes import PASSES
from autoglm_edge_converter.plan import FP16, INT8, Plan, plan_for
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.pruned_graphs import pruned_graphs
from autoglm_edge_converter.recipes import DYNAMIC, HALF, OPTIMISED, STATIC, WEIGHTS
from autoglm_edge_converter.results import Considered, Findings, Measured, Options, Refusal
from autoglm_edge_converter.search import SearchResult, search
from autoglm_edge_converter.selection import SHIPPED, Selection, consider, fill_place
from autoglm_edge_converter.tolerance import FLOAT_MARGIN, INT8_MARGIN, Margin, tolerances
from autoglm_edge_converter.workbench import Workbench
from autoglm_edge_protocol.manifest import Tolerance

STRICTER = 0.25
"""The part of the budget that is searched for again when all that was within it failed on the held-back samples."""

VAGUE = "its answers on the golden set are so far off that damage could not be told from them"


@dataclass(frozen=True)
class Made:
    """The variants to ship and how they came about."""

    plan: Plan
    float_model: onnx.ModelProto
    measured: dict[str, Measured]
    shipped: tuple[Shipped, ...]
    golden: tuple[int, ...]
    findings: Findings


def make(bench: Workbench, options: Options, notes: Sequence[str], progress: Progress) -> Made:
    """Make everything that is shipped but the bundle. Raises CandidateFailed where even the float variant fails."""
    outcomes: list[PassOutcome] = []
    float_model = _optimise(bench, outcomes, progress)
    plan = plan_for(options, bench.parts, weighted_nodes(float_model.graph))
    floats = (Form(ORIGINAL, FP32, bench.original), Form(FP32, FP32, bench.write(float_model, FP32)))
    maker = _Maker(bench, plan, floats, golden_positions(bench), progress)
    pruned, pruning = pruned_graphs(float_model, bench, options.prune, plan.max_drop, plan.seed, progress)
    result, selection = maker.search((FloatGraph(OPTIMISED, float_model), *pruned), options)
    reference = maker.measure_floats(selection)
    if selection is not None:
        maker.fill(selection, reference[FP32])
    findings = Findings(tuple(outcomes), result, (), tuple(notes), pruning=pruning)
    return maker.finish(float_model, reference, selection, findings)


def _optimise(bench: Workbench, outcomes: list[PassOutcome], progress: Progress) -> onnx.ModelProto:
    progress.stage("optimise", len(PASSES))

    def done(outcome: PassOutcome) -> None:
        outcomes.append(outcome)
        progress.step(outcome.name)
        if outcome.dropped:
            progress.note(f"{outcome.name} dropped: {outcome.dropped}")

    return optimise(bench.source.proto, tuple(PASSES), bench.check, done)


def open_cache(options: Options) -> Cache:
    """Return the cache that the options ask for, trimmed to its bound."""
    if options.cache is None:
        return NoCache()
    cache = FolderCache(options.cache)
    cache.trim()
    return cache


class _Maker:
    """The stages that share the bench, the plan and the golden set."""

    def __init__(
        self, bench: Workbench, plan: Plan, floats: tuple[Form, ...], golden: tuple[int, ...], progress: Progress
    ) -> None:
        self._bench = bench
        self._plan = plan
        self._floats = floats
        self._golden = golden
        self._progress = progress
        latency_us = None if plan.max_latency_ms is None else plan.max_latency_ms * 1000
        self._limits = Limits(plan.max_drop, plan.max_size_bytes, latency_us)

    def search(self, graphs: Sequence[FloatGraph], options: Options) -> tuple[SearchResult | None, Selection | None]:
        """Search candidates and time the best ones; nothing where the plan has no recipe."""
        plan = self._plan
        planned = plan.candidates([graph.name for graph in graphs if graph.name != OPTIMISED])
        if not planned:
            return None, None
        self._progress.stage("search", len(self._bench.parts.calibration) * (1 + len(graphs)) + len(planned))
        deadline = Deadline(plan.budget_s)
        candidates = Candidates(graphs, self._bench, self._progress, deadline, open_cache(options))
        planned = candidates.usable(planned)
        result = search(planned, candidates.work(), plan.max_drop, candidates)
        selection = self._consider(result, candidates)
        if self._fails_held_back(selection) and not result.out_of_time:
            # What looked safe was not: once more, for candidates with less noise.
            self._progress.stage("search", len(planned))
            result = search(planned, candidates.work(), plan.max_drop * STRICTER, candidates)
            renewed = self._consider(result, candidates)
            renewed.measured.extend(selection.measured)
            selection = renewed
        if result.out_of_time:
            self._progress.note(f"the search ended after {plan.budget_s:g} s: a larger --budget-s may find better")
        return result, selection

    def _consider(self, result: SearchResult, candidates: Candidates) -> Selection:
        return consider(result.trials, self._floats, candidates, self._bench, self._limits, self._progress)

    def _fails_held_back(self, selection: Selection) -> bool:
        """Try to fill the first place; tell whether there were candidates for it, and each failed."""
        fast = fastest_first([entry for entry in selection.undecided if not _half(entry)])
        self._place(selection, fast)
        return bool(fast) and not selection.chosen

    def measure_floats(self, selection: Selection | None) -> dict[str, Measured]:
        """Measure the original and the float variant. Raises CandidateFailed where the latter fails."""
        if selection is not None:
            timings = selection.timings
        else:
            self._progress.stage("measure", 1)
            timings, _ = time_forms(self._floats, self._bench)
            self._progress.step("latency")
        return {form.id: measure_form(form, self._bench, timings) for form in self._floats}

    def fill(self, selection: Selection, float_variant: Measured) -> None:
        """Fill the places of the bundle: the fastest within the budget, a 16-bit one if asked for, the smallest."""
        self._progress.stage("judge", 2)
        if not selection.chosen:
            self._place(selection, fastest_first([entry for entry in selection.undecided if not _half(entry)]))
        self._progress.step("fastest")
        halves = [entry for entry in selection.undecided if entry.trial.candidate.recipe.family == HALF]
        if FP16 in self._plan.precisions or self._plan.max_size_bytes is not None or not selection.chosen:
            self._place(selection, halves)
        smallest = min(item.size_bytes for item in (float_variant, *selection.chosen))
        left = [entry for entry in selection.undecided if entry not in halves]
        self._place(selection, smallest_first(left, smallest))
        self._progress.step("smallest")
        for entry in selection.undecided:
            if entry.speedup < NOTICEABLE:
                how = "slower" if entry.speedup < 1.0 else "hardly faster"
                selection.decide(entry, f"it is {how} than float here ({entry.speedup:.2f} times its speed)")

    def _place(self, selection: Selection, order: Sequence[Considered]) -> None:
        def refuse(item: Measured) -> str | None:
            return self._refuse_vague(item, selection.chosen)

        fill_place(selection, order, self._bench, self._limits, self._plan.demands, refuse)

    def _refuse_vague(self, item: Measured, chosen: Sequence[Measured]) -> str | None:
        """Say why a golden set cannot judge a candidate, after trying one of samples that it answers clearly.

        A set of few samples, as large answers make it, may lie wholly on borders of the original's decision.
        """
        if self._tolerances(item, self._golden) is not None:
            return None
        held_back = self._bench.parts.evaluation
        scores = self._bench.score_each(item.path, held_back)
        clear = [
            index
            for index, found in zip(held_back, scores, strict=True)
            if tolerances(found, _margin(item)) is not None
        ]
        golden = golden_positions(self._bench, clear) if 2 * len(clear) >= len(held_back) else self._golden
        if any(self._tolerances(entry, golden) is None for entry in (item, *chosen)):
            return VAGUE
        self._golden = golden
        return None

    def _tolerances(self, item: Measured, golden: Sequence[int]) -> tuple[Tolerance, ...] | None:
        return tolerances(self._bench.score(item.path, golden), _margin(item))

    def finish(
        self,
        float_model: onnx.ModelProto,
        reference: dict[str, Measured],
        selection: Selection | None,
        findings: Findings,
    ) -> Made:
        """Decide on the float variant, order what is shipped by quality, and say what could not be had."""
        chosen = sorted(selection.chosen if selection else (), key=lambda item: item.quality.rank, reverse=True)
        refusals = self._refusals(findings.search, selection, reference[FP32])
        float_wanted = FP32 in self._plan.precisions or not chosen
        shipped = [self._ship(item, selection) for item in ([reference[FP32]] if float_wanted else []) + chosen]
        for refusal in refusals:
            self._progress.note(f"no {refusal.precision} variant: {refusal.reason}")
        found = None
        if selection is not None and findings.search is not None:
            eight = [entry.trial for entry in selection.considered if entry.form in _ids(chosen) and _on_8_bits(entry)]
            found = findings.search.choosing(eight[0] if eight else None)
        considered = tuple(selection.considered) if selection else ()
        measured = {item.id: item for item in (*reference.values(), *(selection.measured if selection else ()))}
        told = replace(findings, search=found, refusals=refusals, considered=considered)
        kept = tuple(entry for entry in shipped if entry is not None)
        return Made(self._plan, float_model, measured, kept, self._golden, told)

    def _refusals(
        self, result: SearchResult | None, selection: Selection | None, float_variant: Measured
    ) -> tuple[Refusal, ...]:
        refusals: list[Refusal] = []
        considered = selection.considered if selection else []
        shipped = [entry for entry in considered if entry.outcome == SHIPPED]
        if INT8 in self._plan.precisions and not any(_on_8_bits(entry) for entry in shipped):
            reason = next((entry.outcome for entry in considered if _on_8_bits(entry)), None)
            refusals.append(refuse_search(result, self._plan.max_drop) or Refusal(INT8, reason or NOTHING))
        if FP16 in self._plan.precisions and not any(_half(entry) for entry in shipped):
            reason = next((entry.outcome for entry in considered if _half(entry)), None)
            refusals.append(Refusal(FP16, reason or NOTHING))
        limit = self._limits.max_size_bytes
        if limit is not None and float_variant.size_bytes > limit and not shipped:
            refusals.append(Refusal("small", f"nothing within the budget has at most {limit:,} bytes"))
        return tuple(refusals)

    def _ship(self, item: Measured, selection: Selection | None) -> Shipped | None:
        limits = self._tolerances(item, self._golden)
        if limits is None:
            return None
        notes: list[str] = []
        if item.candidate is not None:
            notes.append(f"recipe: {item.candidate.recipe}")
            notes += [f"kept in float: {', '.join(item.candidate.float_nodes)}"] if item.candidate.float_nodes else []
            notes += [f"{len(item.candidate.tuned)} ranges tuned"] if item.candidate.tuned else []
            notes += [_speed_note(item)] if item.speedup < 1.0 else []
            failed = len(selection.measured) - len(selection.chosen) if selection else 0
            notes += [f"{failed} candidates before it failed on the held-back samples"] if failed else []
        if self._plan.demands.targets:
            targets = ", ".join(self._plan.demands.targets)
            notes.append(f"operator set checked by table for {targets}; speed measured on this machine only")
        return Shipped(item, limits, tuple(notes), opset_in(item.path))


def _margin(item: Measured) -> Margin:
    return FLOAT_MARGIN if item.precision == FP32 and not item.pruning else INT8_MARGIN


NOTHING = "no candidate was within the budget"


def _ids(items: Sequence[Measured]) -> frozenset[str]:
    return frozenset(item.id for item in items)


def _on_8_bits(entry: Considered) -> bool:
    return entry.trial.candidate.recipe.family in (STATIC, DYNAMIC, WEIGHTS)


def _half(entry: Considered) -> bool:
    return entry.trial.candidate.recipe.family == HALF


def _speed_note(item: Measured) -> str:
    return f"shipped for its size: {item.speedup:.2f} times the speed of float here"
