"""What the converter is to reach on each model, and what a measurement says of that. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Row(Protocol):
    """What is asked of a form of a model."""

    tool: str
    problem: str | None
    figures: dict[str, float]
    sqnr_db: float | None
    speed: float | None


@dataclass(frozen=True)
class Figure:
    """Least values that one variant has to reach together; they were set on x86-64 with VNNI."""

    speed: float
    sqnr_db: float | None = None
    quality: float | None = None
    """Of the first figure of the model."""
    lost: float | None = None
    """How far that figure may be under the float's."""
    most_kb: float | None = None
    pruned: bool = False

    def __str__(self) -> str:
        parts = [f"{self.speed:g}x"]
        parts += [f"{self.sqnr_db:g} dB"] if self.sqnr_db is not None else []
        parts += [f"{self.quality:.1%}"] if self.quality is not None else []
        parts += [f"at most {self.lost:.1%} under float"] if self.lost is not None else []
        parts += [f"at most {self.most_kb:g} kB"] if self.most_kb is not None else []
        return ("pruned: " if self.pruned else "") + ", ".join(parts)

    def missed_by(self, row: Row, base: Row) -> list[str]:
        """Return what a variant misses, in words."""
        value = next(iter(row.figures.values()), 0.0)
        missed = [] if (row.speed or 0.0) >= self.speed else [f"{row.speed or 0.0:.2f}x"]
        if self.sqnr_db is not None and row.sqnr_db is not None and row.sqnr_db < self.sqnr_db:
            missed.append(f"{row.sqnr_db:.1f} dB")
        if self.quality is not None and value < self.quality:
            missed.append(f"{value:.2%}")
        if self.lost is not None and next(iter(base.figures.values()), 0.0) - value > self.lost:
            missed.append(f"{value:.2%}")
        if self.most_kb is not None and row.figures.get("size_kB", 0.0) > self.most_kb:
            missed.append(f"{row.figures['size_kB']:.0f} kB")
        return missed


WANTED: dict[str, tuple[Figure, ...]] = {
    "res": (Figure(2.97, sqnr_db=37.0), Figure(4.5, lost=0.003, pruned=True)),
    "mbn": (Figure(1.41, sqnr_db=33.5, most_kb=217),),
    "rapidocr-rec": (Figure(1.8, quality=0.993),),
    "magika": (Figure(2.4, quality=0.975),),
}


def verdicts(model: str, rows: Sequence[Row], processor: str) -> list[str]:
    """Return a line for each figure of a model: met, or by what the variant that comes nearest misses it."""
    base = rows[0]
    ours = [row for row in rows if row.tool.startswith("autoglm-edge") and not row.problem]
    found = []
    for figure in WANTED.get(model, ()):
        able = [row for row in ours if ("pruned" in row.tool.rpartition(":")[2]) == figure.pruned]
        if not able:
            found.append(f"figure wanted, {figure}: not met on {processor}, no such variant")
            continue
        nearest = min(able, key=lambda row: (len(figure.missed_by(row, base)), -(row.speed or 0.0)))
        missed = figure.missed_by(nearest, base)
        verdict = f"not met on {processor}: {', '.join(missed)} ({nearest.tool})" if missed else f"met on {processor}"
        found.append(f"figure wanted, {figure}: {verdict}")
    return found
