"""Writing RESULTS.md: one table a model, with the command and the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_protocol.durable import Disk


class Row(Protocol):
    """What a table needs of a form."""

    tool: str
    problem: str | None
    made_s: float
    figures: dict[str, float]
    sqnr_db: float | None
    speed: float | None
    note: str


def write_results(path: Path, found: Mapping[str, Sequence[Any]], command: str, processors: int) -> None:
    """Write the file anew. Raises OSError."""
    tools = ", ".join(f"{name} {number}" for name, number in versions().items())
    parts = [
        "# Results\n",
        "## Conversion of ONNX models\n",
        f"    {command}\n",
        f"{date.today().isoformat()}, {machine_name()}; {tools}.\n",
        "Speed is processor time of the float model divided by the variant's, medians of runs in turns in one process, "
        "one thread. Quality is on samples that calibrated nothing; all tools were given the same calibration samples "
        "and no option by hand. SQNR is that of the worst float output. Of the machine, which others use too, only the "
        "ratios are to be trusted.\n",
    ]
    for name, rows in found.items():
        parts += [f"### {name}\n", _table(rows), _remarks(rows)]
    Disk().commit(path, "\n".join(part for part in parts if part).encode())


def _table(rows: Sequence[Row]) -> str:
    names = [name for name in next(row.figures for row in rows if row.figures) if name != "size_kB"]
    head = ["tool", *names, "SQNR", "size", "speed", "made in"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        if row.problem:
            lines.append([row.tool, *["-"] * len(names), "-", "-", "-", _seconds(row)])
            continue
        quality = [f"{row.figures[name]:.2%}" for name in names]
        size = f"{row.figures['size_kB']:,.0f} kB"
        lines.append([row.tool, *quality, _decibels(row.sqnr_db), size, _speed(row), _seconds(row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _remarks(rows: Sequence[Row]) -> str:
    remarks = [f"- {row.tool}: {row.problem or row.note}" for row in rows if row.problem or row.note]
    return "\n".join(remarks) + "\n" if remarks else ""


def _decibels(value: float | None) -> str:
    return "-" if value is None else "identical" if math.isinf(value) else f"{value:.1f} dB"


def _speed(row: Row) -> str:
    if row.speed is None:
        return "-"
    return f"**{row.speed:.2f}x**" if row.speed < 1 else f"{row.speed:.2f}x"


def _seconds(row: Row) -> str:
    return f"{row.made_s:.0f} s" if row.made_s else "-"
