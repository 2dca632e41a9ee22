"""What the report tells, as plain values: the page is drawn from it, and `report.json` is it.

Times are microseconds, sizes bytes, shares fractions; what was not measured is None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autoglm_edge_converter.explain.explanation import Explanation

SHIPPED, REFERENCE, DROPPED = "shipped", "reference", "dropped"


@dataclass(frozen=True)
class Entry:
    """One form of the model: a candidate of the search, or one that was measured in the end."""

    id: str
    label: str
    state: str
    """`shipped`, `reference` (what others are compared with) or `dropped`."""
    reason: str
    """Why it was dropped, or what it is."""
    precision: str
    format: str = "onnx"
    metric: str | None = None
    value: float | None = None
    drop: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    sqnr_db: float | None = None
    size_bytes: int | None = None
    median_us: float | None = None
    cpu_us: float | None = None
    speedup: float | None = None
    memory_bytes: int | None = None
    float_nodes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    front: bool = False
    """No other entry is better in one of quality, processor time and size and as good in the rest."""

    @property
    def plotted(self) -> bool:
        """Whether it has what the Pareto plot needs."""
        return None not in (self.value, self.cpu_us, self.size_bytes)


@dataclass(frozen=True)
class Layer:
    """One weighted node. `sqnr_db`: of the answers when it alone is quantized, or of its own output, see `Noise`."""

    name: str
    operator: str
    sqnr_db: float | None
    problem: str | None = None
    in_float: bool = False


@dataclass(frozen=True)
class Noise:
    """How much noise each layer brings, worst first, and how that was measured."""

    how: str = ""
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class LayerSize:
    """What one node's constants weigh in the float variant and in the smallest that is shipped."""

    name: str
    operator: str
    before_bytes: int
    after_bytes: int | None


@dataclass(frozen=True)
class Histogram:
    """How often values fall into equal bins from `low` to `high`, as fractions of all, before and after."""

    title: str
    low: float
    high: float
    before: tuple[float, ...]
    after: tuple[float, ...]
    levels: int | None = None
    """Different values left after quantization."""


@dataclass(frozen=True)
class WorstLayer:
    """The layer that loses most, looked at closely."""

    name: str
    how: str
    histograms: tuple[Histogram, ...]


@dataclass(frozen=True)
class Layers:
    """What is known of the layers of one format."""

    format: str
    noise: Noise = field(default_factory=Noise)
    sizes: tuple[LayerSize, ...] = ()
    worst: WorstLayer | None = None


@dataclass(frozen=True)
class Answer:
    """One class and its score."""

    label: str
    score: float


@dataclass(frozen=True)
class Disagreement:
    """A held-back sample on which the original and a variant give different answers."""

    sample: int
    output: str
    original: tuple[Answer, ...]
    variant: tuple[Answer, ...]
    image: str | None = None
    """A `data:` address of a PNG where the input is image-like."""
    truth: str | None = None


@dataclass(frozen=True)
class Disagreements:
    """Some of the samples on which a variant and the original disagree, out of how many."""

    variant: str
    found: int
    of: int
    shown: tuple[Disagreement, ...]


@dataclass(frozen=True)
class PrunedGroup:
    """Channels that go or stay together. `reason`: why some or all of them cannot be taken out."""

    layers: tuple[str, ...]
    before: int
    after: int
    reason: str | None


@dataclass(frozen=True)
class PruningReport:
    """How much was taken out of the pruned float graph, as fractions, or why nothing was."""

    weights_removed: float
    multiplications_removed: float
    reason: str | None
    groups: tuple[PrunedGroup, ...]


@dataclass(frozen=True)
class Limit:
    """What a device checks of one output."""

    variant: str
    output: str
    text: str


@dataclass(frozen=True)
class Pass:
    """A rewrite of the float graph, and why it was dropped if it was."""

    name: str
    dropped: str | None


@dataclass(frozen=True)
class ReportDocument:
    """The report of one conversion."""

    name: str
    version: str
    source: dict[str, Any]
    machine: str
    max_drop: float
    samples: dict[str, int]
    entries: tuple[Entry, ...]
    tried: tuple[Entry, ...]
    refusals: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    passes: tuple[Pass, ...]
    layers: tuple[Layers, ...]
    """By format."""
    disagreements: tuple[Disagreements, ...]
    limits: tuple[Limit, ...]
    plan: str
    commands: tuple[str, ...]
    versions: dict[str, str]
    pruning: PruningReport | None = None
    explanations: tuple[Explanation, ...] = ()
    """What became of each operator, by shipped variant."""

    def to_json(self) -> str:
        """Return it as JSON (RFC 8259: no NaN, no infinity), equal documents to equal text."""
        return json.dumps(_plain(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def with_front(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Mark the Pareto front of quality (more is better), processor time and size (less is better)."""
    return tuple(
        replace(entry, front=entry.plotted and not any(_beats(other, entry) for other in entries)) for entry in entries
    )


def _beats(other: Entry, entry: Entry) -> bool:
    if not other.plotted or other is entry:
        return False
    theirs, ours = _costs(other), _costs(entry)
    return all(a <= b for a, b in zip(theirs, ours, strict=True)) and theirs != ours


def _costs(entry: Entry) -> tuple[float, float, float]:
    return -(entry.value or 0.0), entry.cpu_us or 0.0, float(entry.size_bytes or 0)
