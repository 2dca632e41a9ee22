"""From the search's trials to the variants: time the shortlist, ask the held-back samples in order of preference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoglm_edge_converter.assemble import opset_in
from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.choose import Limits, refuse_quality, shortlist
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.measure import FP32, Form, measure_form, speedup, time_forms
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import DYNAMIC, FLOAT, HALF, OPTIMISED, STATIC, WEIGHTS, Candidate
from autoglm_edge_converter.results import Considered, Measured
from autoglm_edge_converter.search import Trial
from autoglm_edge_converter.targets import Demands, own_signed, unfit
from autoglm_edge_converter.workbench import Workbench

MOST_JUDGED = 4
"""How many candidates for one place the held-back samples may judge: each more makes them less held back."""

UNDECIDED, SHIPPED = Considered.outcome, "shipped"

Accept = Callable[[Measured], str | None]
"""Says why a measured candidate cannot be shipped after all, None where it can."""


def variant_id(candidate: Candidate) -> str:
    """Return what a variant made by a candidate is called, `int8`, `int8-mixed`, `fp16`, `int8-pruned`, ..."""
    family = candidate.recipe.family
    name = {HALF: "fp16", FLOAT: FP32, WEIGHTS: "int8-weights", DYNAMIC: "int8-dynamic"}.get(family, "int8")
    name += "-mixed" if candidate.float_nodes else ""
    return name if candidate.graph == OPTIMISED else f"{name}-pruned"


@dataclass
class Selection:
    """What was timed and judged; grows as the places of the bundle are filled."""

    considered: list[Considered]
    timings: Mapping[str, Timing]
    paths: Mapping[str, Path]
    """By the form that a candidate was timed under."""
    prunings: Mapping[str, float]
    """By float graph."""
    measured: list[Measured] = field(default_factory=list)
    chosen: list[Measured] = field(default_factory=list)

    @property
    def undecided(self) -> tuple[Considered, ...]:
        """The candidates that nothing speaks against."""
        return tuple(entry for entry in self.considered if entry.outcome == UNDECIDED)

    def decide(self, entry: Considered, outcome: str, form: str | None = None) -> None:
        """Note what became of a candidate."""
        place = next(index for index, other in enumerate(self.considered) if other.form == entry.form)
        self.considered[place] = replace(entry, outcome=outcome, form=form or entry.form)


def consider(
    trials: Sequence[Trial],
    floats: Sequence[Form],
    candidates: Candidates,
    bench: Workbench,
    limits: Limits,
    progress: Progress,
) -> Selection:
    """Write the shortlist of the trials and time it in turns with the float forms. Raises CandidateFailed, OSError."""
    listed = shortlist(trials, limits.max_drop)
    progress.stage("measure", len(listed) + 1)
    forms, twins = [], {}
    for number, trial in enumerate(listed):
        candidate = trial.candidate
        path = candidates.write(candidate, f"candidate-{number}")
        forms.append(Form(f"candidate-{number}", candidate.precision, path, candidate))
        if candidate.recipe.family == STATIC and candidate.recipe.signed != own_signed():
            twin = replace(candidate, recipe=replace(candidate.recipe, signed=own_signed()))
            twins[forms[-1].id] = Form(f"twin-{number}", twin.precision, candidates.write(twin, f"twin-{number}"))
        progress.step(f"write {candidate}")
    timings, problems = time_forms([*floats, *forms, *twins.values()], bench)
    progress.step("latency")
    considered = []
    for trial, form in zip(listed, forms, strict=True):
        # A file for another kind of processor is judged by its twin for this one.
        timing = timings.get(twins[form.id].id if form.id in twins else form.id)
        gain = speedup(timings.get(FP32), timing)
        entry = Considered(trial, form.id, form.path.stat().st_size, timing, gain)
        considered.append(replace(entry, outcome=_first_outcome(entry, problems.get(form.id), limits)))
    return Selection(considered, timings, {form.id: form.path for form in forms}, candidates.prunings)


def _first_outcome(entry: Considered, problem: str | None, limits: Limits) -> str:
    if problem is not None:
        return f"it fails when it is timed: {problem}"
    if entry.timing is None:
        return "its latency could not be measured"
    return limits.broken_by(entry) or UNDECIDED


def fill_place(
    selection: Selection,
    order: Sequence[Considered],
    bench: Workbench,
    limits: Limits,
    demands: Demands,
    accept: Accept,
) -> Measured | None:
    """Judge candidates on the held-back samples, in order, until one passes; return it."""
    for entry in order[:MOST_JUDGED]:
        name = _free_id(variant_id(entry.trial.candidate), {item.id for item in selection.chosen})
        found, reason = _judge(selection, entry, name, bench, limits, demands)
        if found is not None and reason is None:
            reason = accept(found)
        if found is not None and reason is None:
            selection.measured.append(found)
            selection.chosen.append(found)
            selection.decide(entry, SHIPPED, name)
            return found
        selection.decide(entry, reason or "it was not measured")
        if found is not None:
            selection.measured.append(replace(found, id=entry.form))
    return None


def _judge(
    selection: Selection, entry: Considered, name: str, bench: Workbench, limits: Limits, demands: Demands
) -> tuple[Measured | None, str | None]:
    candidate = entry.trial.candidate
    path = selection.paths[entry.form]
    form = Form(name, candidate.precision, path, candidate, selection.prunings.get(candidate.graph, 0.0))
    timings = dict(selection.timings)
    if entry.form in timings:
        timings[name] = timings[entry.form]
    try:
        found = measure_form(form, bench, timings)
    except CandidateFailed as error:
        return None, f"it fails when it is measured: {error}"
    return found, refuse_quality(found.quality, limits.max_drop) or unfit(opset_in(path), found.memory_bytes, demands)


def _free_id(name: str, taken: set[str]) -> str:
    numbers = (f"{name}-{number}" for number in range(2, 100))
    return name if name not in taken else next(entry for entry in numbers if entry not in taken)
