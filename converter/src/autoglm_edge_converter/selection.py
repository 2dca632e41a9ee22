"""From the search's trials to the variants: time the shortlist, ask the acceptance samples in order of preference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from autoglm_edge_converter.acceptance import Acceptance
from autoglm_edge_converter.choose import Limits, shortlist
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.measure import CLOSE, FP32, Form, speedup, time_again, time_forms
from autoglm_edge_converter.original import ONNX
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.recipes import DYNAMIC, FLOAT, HALF, OPTIMISED, SPARSE, WEIGHTS, Candidate
from autoglm_edge_converter.results import Considered, Measured
from autoglm_edge_converter.search import Experiments, Trial
from autoglm_edge_converter.search.ladder import share_of_work
from autoglm_edge_converter.twins import Twins
from autoglm_edge_converter.workbench import Workbench

MOST_JUDGED = 4
"""How many candidates for one place the acceptance samples may judge: each more makes them less held back."""

UNDECIDED, SHIPPED = Considered.outcome, "shipped"


class Builder(Experiments, Protocol):
    """Makes candidates of one format; the stages know no more of it."""

    @property
    def prunings(self) -> Mapping[str, float]:
        """Fraction of the weights taken out, by float graph."""

    @property
    def twins(self) -> Twins:
        """What stands in for candidates that are for other processors."""

    def usable(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Return the candidates that mean something for their graphs."""

    def work(self) -> Mapping[str, float]:
        """Return the multiplications of each node of the optimised graph."""

    def write(self, candidate: Candidate, name: str) -> Path:
        """Build a candidate and write it where it can be measured. Raises CandidateFailed, OSError."""


def variant_id(candidate: Candidate) -> str:
    """Return what a variant made by a candidate is called, `int8`, `int8-mixed`, `fp16`, `int8-pruned`, ..."""
    family = candidate.recipe.family
    name = {HALF: "fp16", FLOAT: FP32, WEIGHTS: "int8-weights", DYNAMIC: "int8-dynamic"}.get(family, "int8")
    name += "-io" if candidate.recipe.everything else ""
    name += "-mixed" if candidate.float_nodes else ""
    name += {OPTIMISED: "", SPARSE: "-sparse"}.get(candidate.graph, "-pruned")
    return name if candidate.format == ONNX else f"{candidate.format}-{name}"


@dataclass
class Selection:
    """What was timed and judged; grows as the places of the bundle are filled."""

    considered: list[Considered]
    timings: Mapping[str, Timing]
    paths: Mapping[str, Path]
    """By the form that a candidate was timed under."""
    prunings: Mapping[str, float]
    """By float graph."""
    refused: list[Measured] = field(default_factory=list)
    """What the acceptance samples refused."""
    chosen: list[Measured] = field(default_factory=list)
    twins: Mapping[str, Path] = field(default_factory=dict)
    """By form: the file that was timed in its place."""
    stand_ins: Mapping[str, Path] = field(default_factory=dict)
    """By form: the file that answers in its place."""

    @property
    def shipped(self) -> tuple[Considered, ...]:
        """The candidates that became variants."""
        return tuple(entry for entry in self.considered if entry.outcome == SHIPPED)

    @property
    def undecided(self) -> tuple[Considered, ...]:
        """The candidates that nothing speaks against."""
        return tuple(entry for entry in self.considered if entry.outcome == UNDECIDED)

    @property
    def turned_down(self) -> tuple[Trial, ...]:
        """The trials that something spoke against."""
        return tuple(entry.trial for entry in self.considered if entry.outcome not in (UNDECIDED, SHIPPED))

    def decide(self, entry: Considered, outcome: str, form: str | None = None) -> None:
        """Note what became of a candidate."""
        place = next(index for index, other in enumerate(self.considered) if other.form == entry.form)
        self.considered[place] = replace(entry, outcome=outcome, form=form or entry.form)

    def remember(self, earlier: Selection) -> None:
        """Keep what was refused in an earlier round, so that the report and the reasons tell of it."""
        again = {entry.trial.candidate for entry in self.considered}
        decided = [entry for entry in earlier.considered if entry.outcome != UNDECIDED]
        self.considered.extend(entry for entry in decided if entry.trial.candidate not in again)
        self.refused.extend(earlier.refused)

    def add(self, later: Selection) -> None:
        """Take in what a later round timed, beside what is here and already has its place."""
        known = {entry.trial.candidate for entry in later.considered}
        # What a round times once more may have waited here undecided.
        kept = [e for e in self.considered if e.outcome != UNDECIDED or e.trial.candidate not in known]
        self.considered = [*kept, *later.considered]
        self.timings = {**later.timings, **self.timings}
        self.paths = {**self.paths, **later.paths}
        self.twins = {**self.twins, **later.twins}
        self.stand_ins = {**self.stand_ins, **later.stand_ins}


def consider(
    trials: Sequence[Trial],
    floats: Sequence[Form],
    builder: Builder,
    bench: Workbench,
    limits: Limits,
    progress: Progress,
    kind: str = "candidate",
) -> Selection:
    """Write the shortlist of the trials and time it in turns with the float forms, the last of which is the base.

    `kind` goes into the names of the files, which are those of one round alone.
    Raises CandidateFailed, OSError.
    """
    listed = shortlist(trials, limits.max_drop)
    progress.stage("measure", len(listed) + 1)
    forms, twins, stand_ins = [], {}, {}
    for number, trial in enumerate(listed):
        candidate = trial.candidate
        name = f"{candidate.format}-{kind}-{number}"
        forms.append(Form(name, candidate.precision, builder.write(candidate, name), candidate))
        twin = builder.twins.timed_as(candidate)
        if twin is not None:
            twins[name] = Form(f"twin-of-{name}", twin.precision, builder.write(twin, f"twin-of-{name}"))
        answering = builder.twins.judged_as(candidate)
        if answering is not None:
            stand_ins[name] = builder.write(answering, f"stand-in-of-{name}")
        progress.step(f"write {candidate}")
    base = floats[-1].id
    timings, problems = time_forms([*floats, *forms, *twins.values()], bench)
    progress.step("latency")
    # A file for another kind of processor is timed as its twin for this one.
    timed = [twins.get(form.id, form) for form in forms]
    close = [form for form in timed if CLOSE[0] <= speedup(timings.get(base), timings.get(form.id)) <= CLOSE[1]]
    again = time_again(floats[-1], close, bench, timings)
    considered, work = [], builder.work()
    for trial, form, stand_in in zip(listed, forms, timed, strict=True):
        timing = again.get(stand_in.id) or timings.get(stand_in.id)
        gain = speedup(timings.get(base), timing)
        # What was timed again has the noise of the base in that run in it.
        alone = 0.0 if stand_in.id in again or base not in timings else timings[base].noise
        noise = 2 * gain * math.hypot(timing.noise, alone) if timing is not None else 0.0
        unknown_on = builder.twins.unknown_on(trial.candidate)
        share = share_of_work(trial.candidate.float_nodes, work)
        size = form.path.stat().st_size
        entry = Considered(trial, form.id, size, timing, gain, noise=noise, unknown_on=unknown_on, float_share=share)
        considered.append(replace(entry, outcome=_first_outcome(entry, problems.get(form.id), limits)))
    paths = {form.id: form.path for form in forms}
    timed_as = {name: form.path for name, form in twins.items()}
    return Selection(considered, timings, paths, builder.prunings, twins=timed_as, stand_ins=stand_ins)


def _first_outcome(entry: Considered, problem: str | None, limits: Limits) -> str:
    if problem is not None:
        return f"it fails when it is timed: {problem}"
    if entry.timing is None:
        return "its latency could not be measured"
    return limits.broken_by(entry) or UNDECIDED


def fill_place(
    selection: Selection, order: Sequence[Considered], purpose: str, acceptance: Acceptance
) -> Measured | None:
    """Judge candidates on the acceptance samples, in order, until one passes; return it."""
    for entry in order[:MOST_JUDGED]:
        name = _free_id(variant_id(entry.trial.candidate), {item.id for item in selection.chosen})
        verdict = acceptance.judge(_form(selection, entry, name), _timings(selection, entry, name))
        if verdict.measured is not None and verdict.refusal is None:
            twin = selection.twins.get(entry.form)
            found = replace(verdict.measured, purpose=purpose, twin=twin, unknown_on=entry.unknown_on)
            selection.chosen.append(found)
            selection.decide(entry, SHIPPED, name)
            return found
        selection.decide(entry, verdict.refusal or "it was not measured")
        if verdict.measured is not None:
            selection.refused.append(replace(verdict.measured, id=entry.form))
    return None


def _form(selection: Selection, entry: Considered, name: str) -> Form:
    candidate = entry.trial.candidate
    pruning = selection.prunings.get(candidate.graph, 0.0)
    return Form(
        name, candidate.precision, selection.paths[entry.form], candidate, pruning, selection.stand_ins.get(entry.form)
    )


def _timings(selection: Selection, entry: Considered, name: str) -> Mapping[str, Timing]:
    # The entry's own: a file for another kind of processor is timed as its twin for this one.
    return {**selection.timings, name: entry.timing} if entry.timing else selection.timings


def _free_id(name: str, taken: set[str]) -> str:
    numbers = (f"{name}-{number}" for number in range(2, 100))
    return name if name not in taken else next(entry for entry in numbers if entry not in taken)
