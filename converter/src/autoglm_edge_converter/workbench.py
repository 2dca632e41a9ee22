"""The samples, the original's answers to them, and the means to compare a model with those answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from autoglm_edge_converter.data.reading import Data
from autoglm_edge_converter.errors import BrokenWeights, CandidateFailed, ModelDoesNotRun, UnknownOperator
from autoglm_edge_converter.laboratory import Answers, Laboratory
from autoglm_edge_converter.metrics.choice import AUTO, Subject, choose_metric
from autoglm_edge_converter.operators import unknown_operator, unresolved_operator
from autoglm_edge_converter.original import ONNX, TFLITE, Original
from autoglm_edge_converter.quality import Score, TaskMetric, score
from autoglm_edge_converter.remembering import Link, check_links, find_links, places
from autoglm_edge_converter.source import all_nodes
from autoglm_edge_converter.split import Split
from autoglm_edge_converter.tensors import Array, Feed, Port
from autoglm_edge_converter.variety import notes_on_variety

_RUNTIMES = {"onnx": "onnxruntime", "tflite": "LiteRT"}

CHECK_SAMPLES = 8
"""How many samples show that a rewrite changes nothing."""

SENSITIVITY_SAMPLES = 48
"""How many samples rank the nodes: noise needs far fewer than agreement does."""


@dataclass(frozen=True)
class Workbench:
    """Everything a candidate is judged with. Indices are those of `feeds`, the samples in use."""

    source: Original
    feeds: tuple[Feed, ...]
    parts: Split
    references: Answers
    laboratory: Laboratory
    scratch: Path
    labels: tuple[Array, ...] | None = None
    """What is true of each sample, in the order of `feeds`."""
    task: TaskMetric | None = None
    """Judges the whole model; None: each output by the metric that suits it."""
    notes: tuple[str, ...] = ()
    """What a user should know about the choice of the metric, of samples that are alike, and of states."""
    links: tuple[Link, ...] = ()
    """The model's states. A sample has a value for each; the golden set is one sequence that begins with zeros."""

    @property
    def original(self) -> Path:
        """What gives the reference answers."""
        return self.source.runnable

    @property
    def check_samples(self) -> tuple[int, ...]:
        """A few samples for checks of equality."""
        return self.parts.search[:CHECK_SAMPLES]

    @property
    def sensitivity_samples(self) -> tuple[int, ...]:
        """The search samples that rank the nodes."""
        return self.parts.search[:SENSITIVITY_SAMPLES]

    def write(self, proto: onnx.ModelProto, name: str) -> Path:
        """Write a model into the scratch directory, equal models to equal bytes. Raises OSError."""
        path = self.scratch / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return path

    def score(self, model: Path, samples: Sequence[int], *, intervals: bool = False) -> Score:
        """Compare a written model with the original. Raises CandidateFailed, UserCodeFailed."""
        answers = self._answers(model, samples)
        labels = None if self.labels is None else [self.labels[index] for index in samples]
        return score(self._names, self._references(samples), answers, labels, self.task, intervals)

    @property
    def applications(self) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """What applications give and see: the inputs and outputs that are no states."""
        given, made = {link.input for link in self.links}, {link.output for link in self.links}
        inputs = tuple(port for port in self.source.inputs if port.name not in given)
        return inputs, tuple(port for port in self.source.outputs if port.name not in made)

    def replay(self, model: Path, golden: Sequence[int]) -> Answers:
        """Return what applications see of a model's answers to the golden samples. Raises CandidateFailed."""
        if not self.links:
            return self._answers(model, golden)
        numbers = places(self.links, self.source.outputs)
        states = {link.input: number for link, number in zip(self.links, numbers, strict=True)}
        answers = self._checked(self.laboratory.follow(model, golden, states))
        return tuple(tuple(a for number, a in enumerate(answer) if number not in numbers) for answer in answers)

    def score_golden(self, model: Path, golden: Sequence[int]) -> Score:
        """Compare what applications see of a model's answers to the golden samples. Raises CandidateFailed."""
        names = [port.name for port in self.applications[1]]
        return score(names, self.golden_answers(golden), self.replay(model, golden))

    def golden_answers(self, golden: Sequence[int]) -> Answers:
        """Return what the original answers to the golden samples. Raises CandidateFailed."""
        return self.replay(self.original, golden) if self.links else self._references(golden)

    def comparing(self, model: Path) -> Callable[[onnx.ModelProto], Score]:
        """Return what compares the outputs of graphs with those of a written model on a few samples.

        Both raise CandidateFailed.
        """
        samples = self.check_samples
        known = self._references(samples) if model == self.original else self._answers(model, samples)

        def compare(proto: onnx.ModelProto) -> Score:
            return score(self._names, known, self._answers(self.write(proto, "check"), samples))

        return compare

    def compare(self, model: Path, samples: Sequence[int]) -> Score:
        """Compare the outputs of a written model with the original's, whatever the task. Raises CandidateFailed."""
        return score(self._names, self._references(samples), self._answers(model, samples))

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(port.name for port in self.source.outputs)

    def _references(self, samples: Sequence[int]) -> Answers:
        return tuple(self.references[index] for index in samples)

    def _answers(self, model: Path, samples: Sequence[int]) -> Answers:
        return self._checked(self.laboratory.run(model, samples))

    def _checked(self, answers: Answers) -> Answers:
        if answers and len(answers[0]) != len(self._names):
            raise CandidateFailed(f"{len(answers[0])} outputs instead of {len(self._names)}")
        return answers


def open_workbench(
    source: Original,
    data: Data,
    laboratory: Laboratory,
    scratch: Path,
    metric: str = AUTO,
    states: Sequence[tuple[str, str]] | None = (),
) -> Workbench:
    """Run the original on every sample, choose the metric and find the states (`remembering.find_links`).

    Raises ModelDoesNotRun, BrokenWeights, BadOption, SampleMismatch, UserCodeFailed, OSError.
    """
    names = tuple(port.name for port in source.outputs)
    links = find_links(source.inputs, source.outputs, states)
    bench = Workbench(source, data.feeds, data.parts, (), laboratory, scratch, data.labels, links=links)
    try:
        references = laboratory.run(bench.original, range(len(data.feeds)))
    except CandidateFailed as error:
        if source.framework == ONNX:
            unknown = unknown_operator(str(error), tuple(all_nodes(onnx.load(source.runnable).graph)))
            if unknown is not None:
                raise UnknownOperator(*unknown) from None
        foreign = unresolved_operator(str(error)) if source.framework == TFLITE else None
        if foreign is not None:
            raise UnknownOperator(foreign, "", "is custom, and none of the libraries given with --ops has it") from None
        raise ModelDoesNotRun(
            f"{_RUNTIMES.get(source.framework, source.framework)} does not run {source.path}: {error}"
        ) from None
    for number, outputs in enumerate(references):
        for port, array in zip(source.outputs, outputs, strict=True):
            if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
                raise BrokenWeights(
                    f"the original itself gives NaN in {port.name!r} for sample {number}: repair it first"
                )
    check_links(links, source.outputs, data.feeds[0], references[0])
    choice = choose_metric(metric, Subject(names, references, data.labels))
    bench = replace(bench, references=references, task=choice.task)
    seen, made = bench.applications
    answers = {port.name: [answer[names.index(port.name)] for answer in references] for port in made}
    alike = notes_on_variety([port.name for port in seen], data.feeds, answers)
    told = [f"{link.output} goes into {link.input} again with the next run, the device keeps it" for link in links]
    told = [f"{text} (found by the names; --state none if that is wrong)" for text in told] if states is None else told
    return replace(bench, notes=(*choice.notes, *alike, *told))
