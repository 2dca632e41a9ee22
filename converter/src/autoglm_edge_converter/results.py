"""What a conversion gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.explain.explanation import Explanation
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.operators import CustomOperators
from autoglm_edge_converter.optimise import PassOutcome
from autoglm_edge_converter.pruned_graphs import Pruning
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.recipes import Candidate
from autoglm_edge_converter.search import SearchResult, Trial
from autoglm_edge_protocol.manifest import Manifest


@dataclass(frozen=True)
class Options:
    """What a user may choose. The defaults need no thought."""

    name: str | None = None
    """Of the bundle; from the file's name when absent."""
    version: str = "1.0.0"
    max_drop: float = 0.01
    precisions: tuple[str, ...] = ("fp32", "int8")
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    formats: tuple[str, ...] = ()
    """Of `original.FORMATS`; empty: what suits the model's framework."""
    loading: tuple[tuple[str, str], ...] = ()
    """Options of the framework's road by name: `state_dict`, `example_inputs`, `signature`."""
    finetune: str | None = None
    """`module.py:function` that trains a pruned model; its framework then prunes, by the fraction `prune`."""
    labels: Path | None = None
    license: Path | None = None
    ops: CustomOperators = field(default_factory=CustomOperators)
    """Libraries of custom operators, carried in the bundle."""
    data: DataOptions = field(default_factory=DataOptions)
    """How files become inputs of the model."""
    states: tuple[tuple[str, str], ...] | None = None
    """Inputs, each with the output that goes into it again with the next run; None: those that the names tell of."""
    int8_io: bool = False
    """TFLite INT8 variants take and give INT8 numbers."""
    metric: str = "auto"
    """What quality is, see `metrics.choice`."""
    seed: int = 0
    force: bool = False
    prune: str = "off"
    """`off`, `auto` (as much as the budget allows) or the fraction of the multiplications to take out."""
    sparsify: float | None = None
    """Fraction of the weights to set to zero in one more variant, which is smaller under compression and no faster."""
    max_size_bytes: int | None = None
    """Of a variant's file; None: any."""
    max_latency_ms: float | None = None
    """Wall time of one run on this machine, one thread; None: any."""
    targets: tuple[str, ...] = ()
    """Names of `targets.TARGETS`; empty: this machine's kind."""
    run_oldest: bool = True
    """Run what is to be shipped in the oldest runtimes of the targets; else their tables of operators are asked."""
    budget_s: float = 120.0
    """How long the search may take; what it has found by then is used."""
    cache: Path | None = None
    """Folder of scores and measured times of earlier conversions; None: nothing is kept."""
    workers: int | None = None
    """How many candidates are scored at once; None: as many as there are processors, at most four."""


@dataclass(frozen=True)
class Measured:
    """One form of the model as it was measured at the end. `id` is `original`, `fp32`, `int8`, `int8-mixed`, ..."""

    id: str
    precision: str
    path: Path
    size_bytes: int
    quality: Score
    """On the evaluation samples; of what is refused before it gets there, on the acceptance samples."""
    timing: Timing | None
    speedup: float
    """Processor time of the float variant divided by this one's, in the same run; 0 where not measured."""
    memory_bytes: int | None
    speedup_to_original: float = 0.0
    """Processor time of the original divided by this one's, in the same run; 0 where not measured."""
    candidate: Candidate | None = None
    """What it was made by; None for the original and the float variant."""
    pruning: float = 0.0
    """Fraction of the original's weights that was taken out."""
    purpose: str = ""
    """Why it is shipped beside the others."""
    twin: Path | None = None
    """What is timed in its place: the same for this machine's kind of processor, where it is made for another."""
    stand_in: Path | None = None
    """What answers in its place: the same without sums that saturate, where they do so here and not on its targets."""
    unknown_on: tuple[str, ...] = ()
    """Machines that it is for and of which its time here does not tell (see `twins`)."""
    accepted: Score | None = None
    """On the acceptance samples, which agreed to it; None for the original and the float variant."""

    @property
    def answering(self) -> Path:
        """The file that gives its answers here."""
        return self.stand_in or self.path


@dataclass(frozen=True)
class Considered:
    """A candidate within the budget on the search samples, as it was timed, and what became of it."""

    trial: Trial
    form: str
    """The id that it was measured under: that of the variant where it is shipped."""
    size_bytes: int
    timing: Timing | None
    speedup: float
    """Processor time of the float variant divided by this one's, in the same run; 0 where not measured."""
    outcome: str = "another is as good or better"
    """`shipped`, or why it is not."""
    noise: float = 0.0
    """Two standard errors of the speedup."""
    unknown_on: tuple[str, ...] = ()
    """Machines that it is for and of which its time here does not tell (see `twins`)."""
    float_share: float = 0.0
    """Part of the float graph's multiplications that it leaves in float."""


@dataclass(frozen=True)
class Refusal:
    """Why no variant of a precision that was asked for is in the bundle."""

    precision: str
    reason: str


@dataclass(frozen=True)
class Findings:
    """All that was tried on the way."""

    passes: tuple[PassOutcome, ...]
    search: SearchResult | None
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    considered: tuple[Considered, ...] = ()
    """The candidates that were timed, in the order in which they were preferred."""
    pruning: Pruning | None = None
    """Groups of coupled channels and what became of them; None where pruning was off."""
    explanations: tuple[Explanation, ...] = ()
    """What became of each operator, by shipped variant."""


@dataclass(frozen=True)
class ConversionResult:
    """A bundle that was written, and what was found on the way."""

    directory: Path
    packed: Path
    manifest: Manifest
    findings: Findings

    @property
    def complete(self) -> bool:
        """False: a precision that was asked for could not be had."""
        return not self.findings.refusals
