"""What a conversion gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.operators import CustomOperators
from autoglm_edge_converter.optimise import PassOutcome
from autoglm_edge_converter.quality import Score
from autoglm_edge_converter.search import SearchResult
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
    labels: Path | None = None
    license: Path | None = None
    ops: CustomOperators = field(default_factory=CustomOperators)
    """Libraries of custom operators, carried in the bundle."""
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class Measured:
    """One form of the model as it was measured at the end. `id` is `original`, `fp32` or `int8`."""

    id: str
    precision: str
    path: Path
    size_bytes: int
    quality: Score
    """On the evaluation samples."""
    timing: Timing | None
    speedup: float
    """Processor time of the float variant divided by this one's, in the same run; 0 where not measured."""
    memory_bytes: int | None


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
