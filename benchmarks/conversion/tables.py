"""Writing RESULTS.md: one section a model, with a table and the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Protocol

from figures import verdicts
from results import write_section

from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_converter.processor import own_words


class Row(Protocol):
    """What a table needs of a form."""

    tool: str
    problem: str | None
    made_s: float
    figures: dict[str, float]
    sqnr_db: float | None
    speed: float | None
    note: str


PART = "Conversion of ONNX models"

INTRODUCTION = """
    .venv/bin/python benchmarks/conversion/run.py

Speed is processor time of the float model divided by the variant's: medians of runs in turns in one process, one
thread. Below 1 it is bold: such a variant is slower than what it was made from. Quality is on samples that calibrated
nothing. All tools were given the same calibration samples, without labels, and no option by hand. SQNR is that of the
worst float output. The machine had other work at the time: trust the ratios more than "made in", which is wall time.

The figures wanted were set on x86-64 with VNNI, and each section says in its title what its processor has. Without VNNI
8-bit products run at about half that speed, and plain 8 bits overflow, so that most speeds wanted cannot be met there.
The sections with VNNI are of an earlier state of the converter.

Olive runs twice where it is in the table: `olive-static` is a workflow of its one pass `OnnxStaticQuantization` with
the same samples, `olive-quantize` is `olive quantize --precision int8 --implementation ort`, which takes samples from
data sets of a hub alone and, without any, quantizes dynamically. The sections with VNNI were measured without it.

Not run: AIMET and ModelOpt (they bring CUDA builds of PyTorch).

"""


def write_results(path: Path, model: str, rows: Sequence[Row]) -> None:
    """Write the section of one model into the file; those of the others stay. Raises OSError."""
    tools = ", ".join(f"{name} {number}" for name, number in versions().items())
    when = f"{date.today().isoformat()}, {machine_name()}; {tools}."
    processor = own_words() or "this processor"
    figures = "".join(f"- {line}\n" for line in verdicts(model, rows, processor))
    text = "\n".join(filter(None, [f"{when}\n", _table(rows), _remarks(rows) + figures]))
    write_section(path, PART, INTRODUCTION, f"{model} ({processor})", text)


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
